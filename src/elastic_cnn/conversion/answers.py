"""What a network answers, and whether another one answers the same."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.tasks.spec import task_spec

Run = Callable[[Tensor], Any]


def answers(output: Any, task: str = "classification") -> Tensor:
    """The decisions in logits (N, classes, ...): the class of each image or pixel, or (of tasks with several
    answers) whether each label applies. `ValueError` for outputs that are no logits."""
    if not isinstance(output, Tensor) or output.dim() not in (2, 4):
        raise ValueError(f"answers can be compared of networks that put out logits (N, classes), not {type(output)}")
    return output > 0 if task_spec(task).several else output.argmax(1)


@torch.no_grad()
def same_answers(own: Run, other: Run, images: Sequence[Tensor], task: str = "classification") -> float:
    """The part of the decisions on `images`, batches (N, C, H, W), that both networks take alike, 0..1."""
    same = total = 0
    for batch in images:
        equal = answers(own(batch), task) == answers(other(batch), task)
        same, total = same + int(equal.sum()), total + equal.numel()
    return same / total


def has_answers(network: nn.Module, images: Tensor) -> bool:
    """Whether `answers` can read what the network puts out."""
    with torch.no_grad():
        output = network(images[:1])
    return isinstance(output, Tensor) and output.dim() in (2, 4)
