"""What a network says about single photos, with the scale policy where it has one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from elastic_cnn.data.folders import find_pictures
from elastic_cnn.data.pixels import to_rgb, upright
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Preparation, eval_transform
from elastic_cnn.files import naming
from elastic_cnn.policy.answers import THRESHOLD, interpret
from elastic_cnn.policy.names import readable
from elastic_cnn.policy.run import Subject, load_subject
from elastic_cnn.policy.scores import BlockInfo, record_if_elastic
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.text import printable, utf8

Photo = str | Path | Image.Image | np.ndarray
Named = str | Path | tuple[str, Image.Image | np.ndarray]
WIDTH = 24  # characters of the longest bar


@dataclass(frozen=True)
class Prediction:
    """classes: (name, probability), best first: the top ones; multi-label: also all that are above their thresholds.
    policy: (block, score) in order of execution; None for a network without elastic blocks. answers: the names that
    are predicted: of one class a photo the first one."""

    path: str
    task: str
    classes: tuple[tuple[str, float], ...]
    policy: tuple[tuple[BlockInfo, float], ...] | None
    answers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        classes = [
            {"class": name, "probability": probability, "predicted": name in self.answers}
            for name, probability in self.classes
        ]
        policy = None
        if self.policy is not None:
            policy = [{**asdict(block), "scales": list(block.scales), "score": score} for block, score in self.policy]
        return {"path": self.path, "task": self.task, "classes": classes, "policy": policy}

    def _repr_html_(self) -> str:
        """In a notebook: the classes, with a bar each."""
        rows = "".join(
            f"<tr><td style='text-align:left'>{escape(_title(name))}</td><td>{100 * chance:.1f}%</td>"
            f"<td style='width:200px'><div style='width:{100 * chance:.1f}%;height:10px;background:#0072B2'></div></td>"
            "</tr>"
            for name, chance in self.classes
        )
        return f"<p>{escape(utf8(self.path))}</p><table>{rows}</table>"


def predict(
    checkpoint: str | Path,
    photos: str | Path | Image.Image | np.ndarray | Sequence[Photo],
    *,
    top: int = 5,
    threshold: float | None = None,
) -> list[Prediction | UnreadableSample]:
    """What the network of a checkpoint or run folder says of photos: `predict_photos` of it, as a list.

    photos: one photo or several: files, pictures of Pillow's, arrays (H, W, 3) of uint8; or a folder of photos.
    """
    if isinstance(photos, str | Path):
        photos = list(find_pictures(photos)) if Path(photos).is_dir() else [photos]
    elif isinstance(photos, Image.Image) or (isinstance(photos, np.ndarray) and photos.ndim == 3):
        photos = [photos]
    named = [photo if isinstance(photo, str | Path) else (f"photo {n}", photo) for n, photo in enumerate(photos)]
    return list(predict_photos(load_subject(checkpoint), named, top=top, threshold=threshold))


def predict_photos(
    subject: Subject, photos: Iterable[Named], *, top: int = 5, threshold: float | None = None
) -> Iterator[Prediction | UnreadableSample]:
    """The prediction for each photo, in order, or the error of a photo that cannot be read.

    photos: files, or (name, picture of Pillow's or array). threshold: of multi-label networks; by default each class's
    own, which the training tuned on its validation photos, and 0.5 where there is none. Raises `ValueError` where the
    network's task has no classes an image (segmentation), and for a picture that is none.
    """
    spec = task_spec(subject.task)
    if spec.per_pixel:
        raise ValueError(f"{subject.checkpoint} segments photos: it gives a class a pixel, none to a photo")
    transform = eval_transform(**subject.preparation)
    network = subject.network.eval()
    device = next(network.parameters()).device
    for photo in photos:
        name = str(photo[0] if isinstance(photo, tuple) else photo)
        try:
            image = _prepared(transform, photo).unsqueeze(0).to(device)  # (1, C, H, W)
        except UnreadableSample as error:
            yield error
            continue
        with naming(subject.checkpoint), record_if_elastic(network) as policy, torch.no_grad():
            logits = network(image)
            found = None
            if policy is not None:
                found = tuple(zip(policy.blocks, policy.scores()[0].tolist(), strict=True))
        every, whose = len(subject.classes), subject.checkpoint
        ranked = interpret(logits, subject.task, subject.classes, top=every, whose=whose)[0].ranked
        answers: tuple[str, ...] = (ranked[0][0],)
        if spec.several:
            least = subject.thresholds if threshold is None else dict.fromkeys(subject.classes, threshold)
            answers = tuple(name for name, chance in ranked if chance > least.get(name, THRESHOLD))
        kept = tuple(entry for number, entry in enumerate(ranked) if number < top or entry[0] in answers)
        yield Prediction(name, subject.task, kept, found, answers)


def _prepared(transform: Preparation, photo: Named) -> torch.Tensor:
    """The network's input, (C, H, W)."""
    if not isinstance(photo, tuple):
        return transform.read(photo, str(photo))
    name, picture = photo
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"{name}: a photo as an array must be (H, W, 3) of uint8, not {picture.shape} of {picture.dtype}"
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise ValueError(
            f"{name}: a photo must be a file, a picture of Pillow's or an array, not {type(picture).__name__}"
        )
    return transform(to_rgb(upright(picture.copy()), transform.reading, name))


def render(prediction: Prediction, fancy: bool = True) -> str:
    """The prediction as text: classes with probabilities, and a bar a block, left of the middle for coarse scale, right
    for fine; the longest bar stands for the largest score of the photo. `fancy`: block characters, else ASCII."""
    full, middle = ("█", "│") if fancy else ("#", "|")
    lines = [printable(utf8(prediction.path))]
    width = max((len(_title(name)) for name, _ in prediction.classes), default=0)
    several = task_spec(prediction.task).several
    for name, probability in prediction.classes:
        mark = ("* " if name in prediction.answers else "  ") if several else ""
        lines.append(
            f"  {mark}{_title(name):<{width}}  {100 * probability:5.1f}%  {full * round(WIDTH * probability)}".rstrip()
        )
    if several:
        lines.append("  * above its threshold" if prediction.answers else "  no class is probable enough")
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
        lines.append(
            f"    {block.name:<{names}}  {size:>9}  {round(score, 4) + 0.0:+.4f}  {left:>{half}}{middle}{right}"
        )
    return "\n".join(lines)


def _title(name: str) -> str:
    """A class's name, with ImageNet's word for it behind a synset number."""
    words = readable(name)
    return printable(name if words == name else f"{name} {words}")
