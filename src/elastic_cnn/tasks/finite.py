"""Numbers that are not finite end a run, with the place and the images."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elastic_cnn.tasks.task import Batch

if TYPE_CHECKING:
    from elastic_cnn.tasks.loop import Loop


class NonFiniteLoss(ValueError):
    """The loss became NaN or infinite; the message says in which batch."""


def is_broken(value: Tensor) -> bool:
    """Whether a scalar is NaN or infinite."""
    return not bool(torch.isfinite(value))


def not_finite(loop: "Loop", what: str, parts: list[Batch]) -> NonFiniteLoss:
    """The error that names the place and the images of `parts`."""
    place = f"epoch {loop.epoch + 1}, step {loop.step + 1} of {loop.batches.steps}"
    paths = [loop.job.train.path(int(index)) for part in parts for index in part["index"]]
    shown = ", ".join(paths[:4]) + (f" and {len(paths) - 4} more" if len(paths) > 4 else "")
    state = "the state before it is in last.ckpt" if loop.folder.last_ckpt.exists() else "no state was saved before it"
    return NonFiniteLoss(
        f"{what} in {place} (images: {shown or 'unknown'}); {state}. "
        "Lower optimizer.lr, set clip_grad, or take precision=fp32"
    )
