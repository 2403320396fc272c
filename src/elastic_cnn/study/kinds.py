"""The kinds of data that studies keep in memory, and what tasks do with them.

A kind is one value, `DataKind`, which its task names (`tasks.spec.TaskSpec.studies`): nothing here asks for a task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from elastic_cnn.data.coco import CocoImages
from elastic_cnn.data.digits import CLASSES, DigitsSpec, make_digits
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.masks import Labels, folder_pairs, read_mask
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.transforms import CROP_MARGIN, centre_square
from elastic_cnn.study.grid import Data
from elastic_cnn.study.stores import Store, StoreBatches, View, random_crop, random_scale
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.multilabel import Multilabel
from elastic_cnn.tasks.segmentation import Segmentation
from elastic_cnn.tasks.spec import study_kind
from elastic_cnn.tasks.task import Task

Stores = tuple[Store, Store]  # to train and to test on


@dataclass(frozen=True)
class DataKind:
    """One kind of data.

    load: (data, its folder, image size, the task's options) -> the stores to train and to test on. `ValueError` where
    images are missing or broken. task: (network, training store, options) -> the task, with `StoreBatches` before it.
    view: (training store, image size, options) -> how views are drawn, None for whole pictures. in_folder: whether it
    lies in a folder. card: fields of the `InputSpec` of its networks.
    """

    load: Callable[[Data, Path, int, Any], Stores]
    task: Callable[[nn.Module, Store, Any], Task]
    view: Callable[[Store, int, Any], View | None]
    in_folder: bool = True
    card: tuple[tuple[str, Any], ...] = ()


def load_stores(data: Data, root: str | Path, image_size: int, options: Any) -> Stores:
    """The stores to train and test on. options: the task's. `ValueError` where images are missing or broken."""
    stores = study_kind(data.kind).load(data, Path(root) / str(data.folder), image_size, options)
    for store in stores:
        store.kind = data.kind
    return stores


class StoredClassification(StoreBatches, Classification):
    """Classification of pictures in memory."""


class StoredMultilabel(StoreBatches, Multilabel):
    """Multi-label classification of pictures in memory."""


class StoredSegmentation(StoreBatches, Segmentation):
    """Segmentation of pictures in memory."""


def _classify(network: nn.Module, store: Store, options: Any) -> Task:
    return StoredClassification(network, len(store.classes), options)


def _crops(store: Store, side: int, options: Any) -> View:
    return random_crop(options.min_scale, hflip=options.hflip)


def _training_side(image_size: int) -> int:
    return round(image_size * CROP_MARGIN)


def _load_digits(data: Data, folder: Path, image_size: int, options: Any) -> Stores:
    spec = DigitsSpec(image_size=image_size, sizes=data.sizes, seed=data.seed)
    test = _store_of_digits("val", data.test or 2000, spec)
    test.plain = make_digits("val", len(test), replace(spec, clutter=False)).images
    return _store_of_digits("train", data.train or 6000, spec), test


def _load_photos(data: Data, folder: Path, image_size: int, options: Any) -> Stores:
    train = _photos(folder, "train", data.train, data.seed, _training_side(image_size), None)
    return train, _photos(folder, data.test_split, data.test, data.seed, image_size, train.classes)


def _load_coco(data: Data, folder: Path, image_size: int, options: Any) -> Stores:
    side, size = _training_side(image_size), (image_size, image_size)
    train = _coco(folder, options.train_split, data.train, data.seed, data.store or (side, side), options)
    return train, _coco(folder, data.test_split, data.test, data.seed, size, options, train.classes)


def _load_masks(data: Data, folder: Path, image_size: int, options: Any) -> Stores:
    side, labels = _training_side(image_size), options.labels(str(folder))
    size = data.store or (side, side)
    train = _masks(folder, options.train_split, data.train, data.seed, size, labels)
    return train, _masks(folder, data.test_split, data.test, data.seed, size, labels)


DIGITS = DataKind(_load_digits, _classify, lambda store, side, options: None, in_folder=False)
PHOTOS = DataKind(_load_photos, _classify, _crops)
COCO = DataKind(
    _load_coco,
    lambda network, store, options: StoredMultilabel(network, store.classes, options),
    _crops,
    card=(("crop_mode", "squash"),),
)
MASKS = DataKind(
    _load_masks,
    lambda network, store, options: StoredSegmentation(network, _labels(store), options),
    lambda store, side, options: random_scale(store.images.shape[-2:], side, options.scale),
)


def _labels(store: Store) -> Labels:
    assert store.labels is not None
    return store.labels


def _store_of_digits(split: str, count: int, spec: DigitsSpec) -> Store:
    digits = make_digits(split, count, spec)
    sizes = digits.sizes.numpy().astype(np.float64)
    return Store(f"digits ({split})", digits.images, {"target": digits.labels}, CLASSES, sizes=sizes)


def _photos(folder: Path, split: str, most: int | None, seed: int, side: int, classes: Sequence[str] | None) -> Store:
    photos = ImageFolder(folder, split, lambda photo: _to_tensor(centre_square(photo, side)), classes)
    samples = [photos[index] for index in _drawn(len(photos), most, seed)]
    targets = torch.tensor([sample["target"] for sample in samples])
    return Store(photos.name, torch.stack([s["image"] for s in samples]), {"target": targets}, photos.classes)


def _coco(
    folder: Path, split: str, most: int | None, seed: int, size: tuple[int, int], options: Any,
    classes: Sequence[str] | None = None,
) -> Store:  # fmt: skip
    known = {**options.data, "classes": classes}
    photos = CocoImages(folder, split, lambda photo: _to_tensor(_resize(photo, size)), options.places, **known)
    samples = [photos[index] for index in _drawn(len(photos), most, seed)]
    targets = {name: torch.stack([sample[name] for sample in samples]) for name in ("targets", "size_targets")}
    return Store(f"{folder.name} ({split})", torch.stack([s["image"] for s in samples]), targets, photos.classes)


def _masks(folder: Path, split: str, most: int | None, seed: int, size: tuple[int, int], labels: Labels) -> Store:
    pairs = folder_pairs(folder, split)
    images, masks = [], []
    for index in _drawn(len(pairs), most, seed):
        images.append(_to_tensor(_resize(read_rgb(pairs.images[index]), size)))
        mask = Image.fromarray(read_mask(pairs.masks[index], labels).astype(np.uint8))
        masks.append(torch.from_numpy(np.asarray(mask.resize(size[::-1], Image.Resampling.NEAREST)).copy()))
    return Store(
        f"{folder.name} ({split})", torch.stack(images), {}, labels.classes, masks=torch.stack(masks), labels=labels
    )


def _drawn(count: int, most: int | None, seed: int) -> list[int]:
    """At most so many numbers below `count`, drawn under the seed, ascending."""
    if most is None or most >= count:
        return list(range(count))
    return sorted(np.random.default_rng([seed, count]).permutation(count)[:most].tolist())


def _resize(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """To (height, width), squashed."""
    return photo.resize(size[::-1], Image.Resampling.BILINEAR)


def _to_tensor(photo: Any) -> Tensor:
    return torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).contiguous()
