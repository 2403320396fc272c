"""Photos with their masks as samples, for training and testing. Errors name the file.

A mask is a picture of the photo's size whose value at a pixel says the class; `labels.py` says what values mean,
`mask_files.py` reads them, `mask_pairs.py` finds the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from elastic_cnn.data.labels import LABELS_FILE, VOC_CLASSES, VOC_LABELS, Labels, read_labels, voc_palette
from elastic_cnn.data.mask_files import classes_not_seen, read_mask
from elastic_cnn.data.mask_pairs import Layout, Pairs, folder_pairs, voc_pairs
from elastic_cnn.data.mask_transforms import AS_THE_PAPER, normalize, pad_to, train_transform
from elastic_cnn.data.picture_kinds import RGB, NoPicture, Reading
from elastic_cnn.data.pixels import opened, read_picture
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Geometry, Picture, height_width

__all__ = [
    "LABELS_FILE", "VOC_CLASSES", "VOC_LABELS", "Labels", "Layout", "MaskSamples", "Pairs",
    "classes_not_seen", "folder_pairs", "read_labels", "read_mask", "voc_pairs", "voc_palette",
]  # fmt: skip

ORIENTATION = 0x0112  # of EXIF; 5 to 8 are turned by a quarter


def orientation(path: Path) -> int:
    """EXIF's, 1 where there is none; 5 to 8 are turned by a quarter."""
    try:
        with opened(path) as file:
            return int(file.getexif().get(ORIENTATION, 1))
    except NoPicture:  # an array of numbers
        return 1


def upright_sides(path: Path, reading: Reading) -> tuple[int, int]:
    """Height and width of a photo, told by its file's head where that is one of Pillow's."""
    try:
        with opened(path) as file:
            height, width = file.size[::-1]
            return (width, height) if file.getexif().get(ORIENTATION, 1) > 4 else (height, width)
    except NoPicture:
        return height_width(read_picture(path, None, reading))


class MaskSamples:
    """A split as samples: `image` float32 (C, H, W), normalised, and `target` int64 (H, W) with `IGNORE` for void.

    scale: the range of random scales in training; None to test. geometry: mirroring and turning in training. size: the
    crop (height, width) in training; in testing photos are padded to it at the right and bottom, or left at their own
    size where it is None. reading: how photos are read, and of how many channels.
    """

    def __init__(
        self,
        pairs: Pairs,
        labels: Labels,
        *,
        size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
        scale: tuple[float, float] | None = None,
        geometry: Geometry = AS_THE_PAPER,
        reading: Reading = RGB,
    ) -> None:
        self.reading = reading
        self.pairs, self.labels, self.size, self.mean, self.std = pairs, labels, size, mean, std
        if scale is not None and size is None:
            raise ValueError("training needs a crop size")
        self.augment = train_transform(size, scale, mean, geometry) if scale is not None and size is not None else None

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> str:
        return str(self.pairs.images[index])

    def read(self, index: int) -> tuple[Picture, np.ndarray]:
        """The photo (RGB; floats for other than 3 channels) and its mask as they are.

        `ValueError` where their sizes differ.
        """
        path = self.pairs.images[index]
        photo, mask = read_picture(path, None, self.reading), read_mask(self.pairs.masks[index], self.labels)
        height, width = height_width(photo)
        if (height, width) != mask.shape:
            turned = (width, height) == mask.shape and orientation(path) > 4
            raise ValueError(
                f"the mask {self.pairs.masks[index]} is {mask.shape[1]} x {mask.shape[0]}, its photo {path} "
                f"{width} x {height}"
                + (", turned upright as its EXIF data says" if turned else "")
                + ": they must have the same size"
            )
        return photo, mask

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        photo, mask = self.read(index)
        pair: Any = (tv_tensors.Image(photo), tv_tensors.Mask(mask))
        if self.augment is not None:
            pair = self.augment(*pair)
        elif self.size is not None:
            pair = pad_to(pair, self.size, self.mean)
        target = pair[1].as_subclass(torch.Tensor).to(torch.int64)
        return {"image": normalize(pair[0], self.mean, self.std), "target": target}

    def check_batchable(self, batch_size: int) -> None:
        """`ValueError` where photos of different sizes would meet in a batch; reads the headers of the files alone."""
        if batch_size == 1 or self.augment is not None:
            return
        first: tuple[tuple[int, int], Path] | None = None
        for path in self.pairs.images:
            try:
                height, width = upright_sides(path, self.reading)
            except UnreadableSample:
                continue  # met again, and reported, when it is read
            if self.size is not None:
                height, width = max(height, self.size[0]), max(width, self.size[1])
            size = width, height
            first = first or (size, path)
            if size != first[0]:
                raise ValueError(
                    f"photos of different sizes cannot be tested {batch_size} at a time ({first[1]}: {first[0][0]} x "
                    f"{first[0][1]}, {path}: {size[0]} x {size[1]}): set val_batch_size=1, or a larger image_size"
                )
