"""What a network says about images, in words: from logits to classes and probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elastic_cnn.nn.compare import require_finite
from elastic_cnn.tasks.spec import task_spec

THRESHOLD = 0.5


@dataclass(frozen=True)
class Answer:
    """A network's answer for one image.

    prediction: the most probable class; for multi-label all classes above the threshold, in the network's order.
    confidence: the probability of the most probable class. ranked: the most probable classes, best first.
    """

    prediction: str | list[str]
    confidence: float
    ranked: tuple[tuple[str, float], ...]

    def is_right(self, label: str | Sequence[str] | None, classes: frozenset[str]) -> bool | None:
        """Whether prediction and label agree (multi-label: as sets); None where the label is unknown to the network."""
        if label is None:
            return None
        if isinstance(self.prediction, str):
            return self.prediction == label if label in classes else None
        return set(self.prediction) == set(label) if classes.issuperset(label) else None


def interpret(
    logits: Tensor,
    task: str,
    classes: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    top: int = 5,
    whose: object = "the network",
) -> list[Answer]:
    """Answers for logits (N, classes), as the task's `TaskSpec` says: softmax and the best class for `classification`.

    With several answers an image (multilabel) a class is predicted when its probability exceeds `threshold`.
    whose: the network, for messages: its checkpoint. Raises `ValueError` where the logits are not of that shape, or not
    finite.
    """
    if logits.ndim != 2 or logits.shape[1] != len(classes):
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not fit {len(classes)} class names")
    logits = logits.detach().float()
    require_finite(logits, whose)
    spec = task_spec(task)
    probabilities, answer = spec.code("probabilities")(logits), spec.code("answer")  # (N, classes)
    values, indices = probabilities.topk(min(top, len(classes)), dim=1)
    answers = []
    for row, best, order in zip(probabilities.cpu(), values.tolist(), indices.tolist(), strict=True):
        ranked = tuple((classes[i], p) for i, p in zip(order, best, strict=True))
        answers.append(Answer(answer(row, classes, threshold), ranked[0][1], ranked))
    return answers


def softmax(logits: Tensor) -> Tensor:
    """Over the classes: (N, C, ...)."""
    return logits.softmax(dim=1)


def sigmoid(logits: Tensor) -> Tensor:
    """Of each class: (N, C, ...)."""
    return logits.sigmoid()


def most_probable(probabilities: Tensor, classes: Sequence[str], threshold: float) -> str:
    """The one class of an image: probabilities (C,)."""
    return classes[int(probabilities.argmax())]


def above_threshold(probabilities: Tensor, classes: Sequence[str], threshold: float) -> list[str]:
    """All classes of an image whose probability exceeds the threshold, in their order: probabilities (C,)."""
    return [classes[number] for number in torch.nonzero(probabilities > threshold).flatten().tolist()]
