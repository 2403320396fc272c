"""Callbacks for those who train with Lightning's own Trainer; `elastic train` does the same by its recipes."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from elastic_cnn.nn import set_blend
from elastic_cnn.tasks.blend import Blend


class BlendSchedule(Callback):
    """Sets the blend of the module's elastic layers before each training step; validation sees blend 1.

    start, end: parts of the run between which the blend goes from 0 to 1 (see `Blend`). The state is a function of
    the Trainer's step, so a resumed run continues where it was.
    """

    def __init__(self, start: float = 0.0, end: float = 0.5) -> None:
        self.blend = Blend(start, end)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        steps = max(1, int(trainer.estimated_stepping_batches))
        set_blend(pl_module, self.blend.at(trainer.global_step / steps))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_blend(pl_module, 1.0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_blend(pl_module, 1.0)
