"""What a network says about single photos, with the scale policy where it has one."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.policy.answers import THRESHOLD, interpret
from elastic_cnn.policy.names import readable
from elastic_cnn.policy.run import Subject, load_subject
from elastic_cnn.policy.scores import BlockInfo, record_policy
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.text import printable, utf8

WIDTH = 24  # characters of the longest bar


@dataclass(frozen=True)
class Prediction:
    """classes: (name, probability), best first: the top ones, or (multi-label) all above the threshold.
    policy: (block, score) in order of execution; None for a network without elastic blocks."""

    path: str
    task: str
    classes: tuple[tuple[str, float], ...]
    policy: tuple[tuple[BlockInfo, float], ...] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        classes = [{"class": name, "probability": probability} for name, probability in self.classes]
        policy = None
        if self.policy is not None:
            policy = [{**asdict(block), "scales": list(block.scales), "score": score} for block, score in self.policy]
        return {"path": self.path, "task": self.task, "classes": classes, "policy": policy}


def predict(
    checkpoint: str | Path, photos: Sequence[str | Path], *, top: int = 5, threshold: float = THRESHOLD
) -> list[Prediction | UnreadableSample]:
    """What the network of a checkpoint or run folder says of photo files: `predict_photos` of it, as a list."""
    return list(predict_photos(load_subject(checkpoint), photos, top=top, threshold=threshold))


def predict_photos(
    subject: Subject, paths: Sequence[str | Path], *, top: int = 5, threshold: float = THRESHOLD
) -> Iterator[Prediction | UnreadableSample]:
    """The prediction for each photo, in order, or the error of a photo that cannot be read.

    Raises `ValueError` where the network's task has no classes an image (segmentation).
    """
    spec = task_spec(subject.task)
    if spec.per_pixel:
        raise ValueError(f"{subject.checkpoint} segments photos: it gives a class a pixel, none to a photo")
    transform = eval_transform(**subject.preparation)
    network = subject.network.eval()
    device = next(network.parameters()).device
    elastic = any(isinstance(module, ElasticBranches) for module in network.modules())
    for path in paths:
        try:
            image = transform.read(path, str(path)).unsqueeze(0).to(device)  # (1, C, H, W)
        except UnreadableSample as error:
            yield error
            continue
        with record_policy(network) if elastic else nullcontext() as policy, torch.no_grad():
            logits = network(image)
            found = None
            if policy is not None:
                found = tuple(zip(policy.blocks, policy.scores()[0].tolist(), strict=True))
        count = len(subject.classes) if spec.several else top
        ranked = interpret(logits, subject.task, subject.classes, top=count)[0].ranked
        if spec.several:
            ranked = tuple((name, probability) for name, probability in ranked if probability > threshold)
        yield Prediction(str(path), subject.task, ranked, found)


def render(prediction: Prediction, fancy: bool = True) -> str:
    """The prediction as text: classes with probabilities, and a bar a block, left of the middle for coarse scale, right
    for fine; the longest bar stands for the largest score of the photo. `fancy`: block characters, else ASCII."""
    full, middle = ("█", "│") if fancy else ("#", "|")
    lines = [printable(utf8(prediction.path))]
    width = max((len(_title(name)) for name, _ in prediction.classes), default=0)
    for name, probability in prediction.classes:
        lines.append(
            f"  {_title(name):<{width}}  {100 * probability:5.1f}%  {full * round(WIDTH * probability)}".rstrip()
        )
    if not prediction.classes:
        lines.append("  no class is probable enough")
    if prediction.policy is None:
        lines.append("  no scale policy: this network has no elastic block")
        return "\n".join(lines)
    longest = max(abs(score) for _, score in prediction.policy) or 1.0
    names = max(len(block.name) for block, _ in prediction.policy)
    half = WIDTH // 2
    head = "  scale policy, first block to last"
    lines.append(f"{head}{'coarse ':>{max(0, names + 26 + half - len(head))}}{middle} fine")
    for block, score in prediction.policy:
        length = round(half * abs(score) / longest)
        left, right = (full * length, "") if score < 0 else ("", full * length)
        size = f"{block.height}x{block.width}"
        lines.append(f"    {block.name:<{names}}  {size:>9}  {score:+.4f}  {left:>{half}}{middle}{right}")
    return "\n".join(lines)


def _title(name: str) -> str:
    """A class's name, with ImageNet's word for it behind a synset number."""
    words = readable(name)
    return printable(name if words == name else f"{name} {words}")
