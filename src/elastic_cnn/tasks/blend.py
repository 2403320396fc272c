"""Gradual conversion: move the low-resolution branches from full resolution to their own while fine-tuning.

A network fresh from `elasticize` computes something else than the trained network it came from. At blend 0 it still
computes the very same; the schedule moves it to blend 1, the elastic network, in small steps that training can follow.
"""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from elastic_cnn.nn import set_blend


def blend_at(done: float, start: float = 0.0, end: float = 0.5) -> float:
    """The blend when the part `done` (0..1) of the run is behind: 0 until `start`, 1 from `end`, linear between.

    `ValueError` where start and end do not lie in order within 0..1.
    """
    if not 0 <= start <= end <= 1:
        raise ValueError(f"a blend runs from start to end within 0..1, got start={start}, end={end}")
    if done >= end:
        return 1.0
    return max(0.0, (done - start) / (end - start)) if done > start else 0.0


class BlendSchedule(Callback):
    """For Lightning's Trainer: sets the blend of the module's elastic layers before each training step.

    start, end: parts of the run between which the blend goes from 0 to 1. The state is a function of the Trainer's
    step, so a resumed run continues where it was.
    """

    def __init__(self, start: float = 0.0, end: float = 0.5) -> None:
        blend_at(0, start, end)
        self.start, self.end = start, end

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        steps = max(1, int(trainer.estimated_stepping_batches))
        set_blend(pl_module, blend_at(trainer.global_step / steps, self.start, self.end))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_blend(pl_module, blend_at(1.0, self.start, self.end))
