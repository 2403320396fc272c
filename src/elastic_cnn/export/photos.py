"""Photos to calibrate and to judge a quantized network on."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.export.formats import Run
from elastic_cnn.zoo.checkpoint import InputSpec

BATCH = 16


def read_images(photos: Sequence[Path], spec: InputSpec, left_out: LeftOut) -> Tensor | None:
    """The photos prepared as the network's input: `(N, 3, H, W)`, without those noted in `left_out` as unreadable.

    None where no photo can be read.
    """
    transform = eval_transform(**asdict(spec))
    images = []
    for path in photos:
        try:
            images.append(transform.read(path))
        except UnreadableSample as error:
            left_out.note(error.path, error.reason)
    return torch.stack(images) if images else None


def open_split(data: str, split: str, classes: Sequence[str], spec: InputSpec) -> ImageFolder:
    """A split to test on. `ValueError` where the data is missing or holds unknown classes."""
    return ImageFolder(data, split, eval_transform(**asdict(spec)), classes)


def top1(runs: Sequence[Run], folder: ImageFolder, limit: int, left_out: LeftOut) -> list[float]:
    """Part of a split's photos whose best class is right, for each of the networks; at most `limit` photos, drawn
    at random, without those noted in `left_out` as unreadable. `ValueError` where none can be read."""
    right, seen = [0] * len(runs), 0
    for images, targets in _batches(folder, limit, left_out):
        seen += len(targets)
        for number, run in enumerate(runs):
            right[number] += int((run(images).argmax(1) == targets).sum())
    if not seen:
        raise ValueError(f"no photo of {folder.name} can be read, the last being {left_out.last}")
    return [count / seen for count in right]


def _batches(folder: ImageFolder, limit: int, left_out: LeftOut) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0)).tolist()[:limit]
    for start in range(0, len(drawn), BATCH):
        samples = []
        for index in drawn[start : start + BATCH]:
            try:
                samples.append(folder[index])
            except UnreadableSample as error:
                left_out.note(error.path, error.reason)
        if samples:
            yield torch.stack([s["image"] for s in samples]), torch.tensor([s["target"] for s in samples])
