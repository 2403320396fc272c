"""The demo's images, all in memory: the embedded digits, or the photos of a folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from elastic_cnn.data.digits import CLASSES, DigitsSpec, make_digits
from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.sampler import Samples, UnreadableSample
from elastic_cnn.data.transforms import CROP_MARGIN, centre_square, train_transform
from elastic_cnn.tasks.console import Console
from elastic_cnn.zoo.checkpoint import InputSpec

LARGEST = 5 / 6  # of the image's side, the height of the largest digit


@dataclass(frozen=True)
class DemoData:
    """kind: `digits` or `photos`. train, val: what the networks train on and are tested on after each epoch.

    images: (N, 3, S, S) uint8, what the finished networks are compared on; labels (N,); sizes (N,): true heights of the
    objects in pixels, None where they are not known. notes: what a reader of the results has to know about the data.
    """

    kind: str
    name: str
    classes: tuple[str, ...]
    train: Samples
    val: Samples
    images: Tensor
    labels: Tensor
    sizes: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


class TensorSamples:
    """`Samples` of the training engine from images (N, 3, H, W) uint8 and class numbers (N,)."""

    def __init__(self, images: Tensor, labels: Tensor, spec: InputSpec) -> None:
        self.images, self.labels, self.spec = images, labels, spec

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": normalise(self.images[index], self.spec.mean, self.spec.std),
            "target": int(self.labels[index]),
        }

    def path(self, index: int) -> str:
        return f"image {index}"


class PictureSamples:
    """`Samples` from small pictures, with a random crop each time."""

    def __init__(self, pictures: Sequence[Image.Image], labels: Sequence[int], transform: Callable) -> None:
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.transform(self.pictures[index]), "target": self.labels[index]}

    def path(self, index: int) -> str:
        return f"photo {index}"


def load_digits(
    train_count: int, val_count: int, test_count: int, image_size: int, seed: int, spec: InputSpec, console: Console
) -> DemoData:
    """Digits at known sizes. The images of `val` are the first of those that the finished networks are compared on."""
    digits = DigitsSpec(image_size=image_size, sizes=(8.0, LARGEST * image_size), seed=seed)
    with console.bar("drawing images", train_count + test_count) as bar:
        train = make_digits("train", train_count, digits, bar.update)
        test = make_digits("val", test_count, digits, bar.update)
    val = test.first(val_count)
    return DemoData(
        "digits",
        "handwritten digits in clutter",
        CLASSES,
        TensorSamples(train.images, train.labels, spec),
        TensorSamples(val.images, val.labels, spec),
        test.images,
        test.labels,
        test.sizes.numpy().astype(np.float64),
    )


def load_photos(
    folder: str | Path, most_train: int, most_test: int, image_size: int, seed: int, spec: InputSpec, console: Console
) -> DemoData:
    """Photos of a folder with train/CLASS and val/CLASS, shrunk once; at most so many, drawn at random under the seed.

    Raises `ValueError` where the folder lacks a split, a split holds no readable image, or there is but one class.
    """
    side = round(image_size * CROP_MARGIN)
    train = ImageFolder(folder, "train", lambda picture: picture)
    train.require_several_classes()
    test = ImageFolder(folder, "val", lambda picture: picture, train.classes)
    for source in (train, test):
        console.tell_found(source)
    notes: list[str] = []
    shown = {}
    for source, most in ((train, most_train), (test, most_test)):
        numbers = np.random.default_rng([seed, len(source)]).permutation(len(source))
        if len(source) > most:
            notes.append(
                f"{most:,} of the {len(source):,} photos in {Path(source.name).name} were used, drawn at random."
            )
        pictures, labels, broken = _shrink(source, sorted(numbers[:most]), side, console)
        if broken:
            notes.append(f"{broken} unreadable photo(s) in {Path(source.name).name} were left out.")
        if not pictures:
            raise ValueError(f"none of the photos in {source.name} can be read")
        shown[source.name] = pictures, labels
    pictures, labels = shown[train.name]
    transform = train_transform(image_size, spec.mean, spec.std, spec.interpolation, min_scale=0.35)
    test_pictures, test_labels = shown[test.name]
    images = torch.stack([_centre(picture, image_size) for picture in test_pictures])
    targets = torch.tensor(test_labels)
    samples = TensorSamples(images, targets, spec)
    return DemoData(
        "photos", Path(folder).resolve().name, train.classes, PictureSamples(pictures, labels, transform), samples,
        images, targets, None, notes,
    )  # fmt: skip


def _shrink(
    photos: ImageFolder, indices: Sequence[int], side: int, console: Console
) -> tuple[list[Image.Image], list[int], int]:
    """Pictures with a short side of `side`, their class numbers, and how many could not be read."""
    pictures: list[Image.Image] = []
    labels: list[int] = []
    broken = 0
    with console.bar(f"reading {Path(photos.name).name}", len(indices)) as bar:
        for index in indices:
            try:
                sample = photos[int(index)]
                picture = sample["image"]
                scale = side / min(picture.size)
                size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
                pictures.append(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2))
                labels.append(sample["target"])
            except UnreadableSample as error:
                broken += 1
                console.warn(f"left out: {error}")
            bar.update(1)
    return pictures, labels, broken


def _centre(picture: Image.Image, size: int) -> Tensor:
    """The centre square, resized: (3, size, size) uint8."""
    return torch.from_numpy(np.asarray(centre_square(picture, size)).copy()).permute(2, 0, 1)
