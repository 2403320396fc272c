"""Photos with one class each: folders, tar files, WebDataset shards and Hugging Face data sets, by timm's readers."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    add_img_extensions,
    create_dataset,
    create_transform,
)

from elastic_cnn.data.fast_pixels import FastTrainTransform
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.remote import is_url
from elastic_cnn.data.shards import IMAGES, ShardReader, TarFolder
from elastic_cnn.extras import require

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
add_img_extensions((*IMAGES, ".gif", ".tif", ".tiff"))  # timm alone would pass them over in silence
Transform = Callable[[Image.Image], torch.Tensor]


class ImageFolder:
    """Samples `{"image": transform(picture), "target": class number}` of one split.

    data: a folder with `train` and `val` (or `validation`) in it, each a folder of class folders or a tar file
        (`train.tar`) of one; a Hugging Face data set as `hfds/NAME`; WebDataset shards as `wds/FOLDER`
        or `wds/URL`.
    split: `train`, `val`, `test`, or another folder's name.
    classes: the classes to number by (those of the training split or of a checkpoint); all must be known among them. By
        default the classes found, in natural order.

    Raises `ValueError` where the split is missing or empty, or holds a class that is not among `classes`.
    """

    def __init__(
        self, data: str | Path, split: str, transform: Transform, classes: Sequence[str] | None = None
    ) -> None:
        self.transform = transform
        self.name, self.reader = _open(str(data), split)
        found = _class_names(self.reader)
        if len(self.reader) == 0 or not found:
            raise ValueError(f"{self.name} holds no images")
        if unnameable := [name for name in found if _printable(name) != name]:
            raise ValueError(
                f"{self.name}: the class folder {_printable(unnameable[0])} is not named in UTF-8: rename it"
            )
        self.classes = tuple(found if classes is None else classes)
        numbers = {name: number for number, name in enumerate(self.classes)}
        if unknown := [name for name in found if name not in numbers]:
            raise ValueError(
                f"{self.name} holds {_list(unknown)}, which the classes to choose from lack ({_list(self.classes)}): "
                "remove it, or add it to the training images"
            )
        self.found = tuple(found)
        self._number = {index: numbers[name] for index, name in enumerate(found)}

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, target = self.reader[index]
        try:
            if isinstance(self.transform, FastTrainTransform):
                image = self.transform.read(file.read(), self.path(index))
            else:
                image = self.transform(read_rgb(file, self.path(index)))
        finally:
            file.close()
        return {"image": image, "target": self._number[int(target)]}

    def prefetch(self, indices: Sequence[int]) -> None:
        """Fetch these samples' files together where they lie on a server."""
        if isinstance(self.reader, ShardReader):
            self.reader.prefetch(indices)

    def path(self, index: int) -> str:
        """The picture's path below the split's folder, with it where it is a file."""
        return _printable(str(self.reader.filename(index, absolute=True)))


def train_transform(
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
    min_scale: float = 0.08,
    color_jitter: float = 0.0,
    auto_augment: str | None = None,
    erase: float = 0.0,
    loading: str = "exact",
) -> Transform:
    """Random resized crop and flip, and what is asked for beyond, by timm -> (3, size, size) floats, normalised.

    loading: `exact` as said; `fast` -> (3, size, size) uint8 by `FastTrainTransform`, to be normalised on the device.
    `ValueError` where fast loading cannot do what is asked for.
    """
    if loading == "fast":
        if erase:
            raise ValueError("fast loading cannot erase, which comes after the normalisation: take loading=exact")
        return FastTrainTransform(size, interpolation, min_scale, color_jitter, auto_augment)
    return create_transform(
        size,
        is_training=True,
        scale=(min_scale, 1.0),
        color_jitter=color_jitter or None,  # type: ignore[arg-type]  # 0 would take time
        auto_augment=auto_augment,
        re_prob=erase,
        re_mode="pixel",
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
    )


def eval_transform(
    size: tuple[int, int] = (224, 224),
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    interpolation: str = "bilinear",
    crop_pct: float = 0.875,
    crop_mode: str = "center",
) -> Transform:
    """The test input of a network, from the fields of a checkpoint's `InputSpec` -> (3, H, W) floats, normalised."""
    return create_transform(
        (3, *size),
        is_training=False,
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=1.0 if crop_mode == "squash" else crop_pct,
        crop_mode=crop_mode,
    )


def _open(data: str, split: str) -> tuple[str, Any]:
    """The name of a split for messages, and its reader: `reader[i] -> (binary file, number)`, timm's interface."""
    if data.startswith("hfds/"):
        require("datasets", "data")
        names = SPLITS.get(split, (split,))
        return _hugging_face(data, names)
    if data.startswith("wds/"):
        place = data.removeprefix("wds/")
        if not is_url(place):
            _check_folder(Path(place))
        return f"{place} ({split})", ShardReader(place, SPLITS.get(split, (split,)))
    root = _split_folder(Path(data), split)
    if root.is_file():
        return str(root), TarFolder(root)
    _refuse_link_loops(root)
    try:
        return str(root), create_dataset("", root=str(root), split=split, search_split=False).reader
    except RuntimeError as error:  # timm found no image
        raise ValueError(f"{root} holds no images in class folders") from error


def _refuse_link_loops(root: Path) -> None:
    """A link to a folder above it would give every picture many times over."""
    for folder, names, _ in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        for name in names:
            link = os.path.join(folder, name)
            if os.path.islink(link) and os.path.commonpath([here, os.path.realpath(link)]) == os.path.realpath(link):
                raise ValueError(f"{_printable(link)} is a link to a folder that holds it: remove the link")


def _printable(text: str) -> str:
    """File names may hold bytes that are not UTF-8; they are shown as \\xNN."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _hugging_face(data: str, names: Sequence[str]) -> tuple[str, Any]:
    problems = []
    for name in names:
        try:
            return f"{data} ({name})", create_dataset(data, split=name).reader
        except ValueError as error:  # no such split
            problems.append(str(error))
    raise ValueError(f"{data} cannot be opened: {problems[0]}")


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"there is no folder {path}")
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")


def _split_folder(data: Path, split: str) -> Path:
    """The folder or tar file of a split."""
    _check_folder(data)
    names = SPLITS.get(split, (split,))
    for name in names:
        for path in (data / name, data / f"{name}.tar"):
            if path.is_dir() or path.is_file():
                return path
    there = sorted(entry.name for entry in data.iterdir() if not entry.name.startswith("."))
    raise ValueError(
        f"{data} has no folder {' or '.join(map(repr, names))}: it should hold train/CLASS/IMAGE and val/CLASS/IMAGE "
        f"(it holds {_list(there) if there else 'nothing'})"
    )


def _class_names(reader: Any) -> list[str]:
    """Names of the classes in the order of their numbers in the reader."""
    mapping = reader.class_to_idx
    if mapping:
        return [str(name) for name, _ in sorted(mapping.items(), key=lambda item: item[1])]
    numbers = {int(reader[index][1]) for index in range(len(reader))}
    return [str(number) for number in range(max(numbers, default=-1) + 1)]


def _list(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
