"""Whether a network answers as another one does."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.nn.compare import require_finite
from elastic_cnn.tasks.spec import task_spec

Run = Callable[[Tensor], Any]


@torch.no_grad()
def same_answers(own: Run, other: Run, images: Sequence[Tensor], task: str = "classification") -> float:
    """The part of the answers on `images`, batches (N, C, H, W), that both networks give alike, 0..1: the class of each
    image or pixel, whether each label applies, or what else the task calls alike (`TaskSpec.agreement`).

    `ValueError` for outputs that are no logits.
    """
    agreement = task_spec(task).code("agreement")
    same = total = 0.0
    for batch in images:
        outputs = own(batch), other(batch)
        for output in outputs:
            _require_logits(output)
            require_finite(output)
        same, total = same + len(batch) * agreement(*outputs), total + len(batch)
    return same / total


def _is_logits(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() in (2, 4)


def _require_logits(output: Any) -> None:
    if not _is_logits(output):
        raise ValueError(f"answers can be compared of networks that put out logits (N, classes), not {type(output)}")


@torch.no_grad()
def require_finite_answers(network: nn.Module, images: Tensor) -> None:
    """`ValueError` where the logits of a network (in eval mode) for the first image are not finite."""
    if _is_logits(output := network(images[:1])):
        require_finite(output)


def has_answers(network: nn.Module, images: Tensor) -> bool:
    """Whether `same_answers` can read what the network puts out."""
    with torch.no_grad():
        return _is_logits(network(images[:1]))
