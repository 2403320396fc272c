"""Photos and index masks for segmentation: PASCAL VOC 2012 with SBD's additional masks, and folders in CamVid's layout.

A mask is a picture of the photo's size whose value at a pixel is the number of its class. Errors name the file.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.datasets import SBDataset, VOCSegmentation

from elastic_cnn.data.json_keys import distinct_keys
from elastic_cnn.data.mask_transforms import IGNORE, normalize, pad_to, train_transform
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.extras import MissingExtra, require

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MASK_MODES = ("L", "P", "1")
LABELS_FILE = "labels.json"
ORIENTATION = 0x0112  # of EXIF; 5 to 8 are turned by a quarter
Colour = tuple[int, int, int]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def voc_palette(count: int) -> tuple[Colour, ...]:
    """VOC's colours: the bits of the class number, dealt to red, green and blue from the highest bit on."""
    colours = []
    for number in range(count):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (number >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)


@dataclass(frozen=True)
class Labels:
    """What the values in masks mean: `classes[v]` for v below their number, `void` for pixels that do not count.

    palette: a colour (red, green, blue; 0..255) for each class; VOC's where none is given.
    """

    classes: tuple[str, ...]
    void: int = IGNORE
    palette: tuple[Colour, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        palette = tuple(tuple(colour) for colour in self.palette) or voc_palette(len(self.classes))
        object.__setattr__(self, "palette", palette)
        if len(set(self.classes)) != len(self.classes) or not 2 <= len(self.classes) <= IGNORE:
            raise ValueError(f"classes={self.classes} must be 2 to {IGNORE} different names")
        if not 0 <= self.void <= 255 or self.void < len(self.classes):
            raise ValueError(f"void={self.void} must lie between {len(self.classes)} (behind the classes) and 255")
        valid = (len(c) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in c) for c in palette)
        if len(palette) != len(self.classes) or not all(valid):
            raise ValueError(f"palette={self.palette} must hold {len(self.classes)} colours of three numbers 0..255")


VOC_LABELS = Labels(VOC_CLASSES)


def read_labels(folder: Path) -> Labels:
    """Labels from `labels.json` in a data folder: `{"classes": [...], "void": 11, "palette": [[r, g, b], ...]}`.

    `void` (255 by default) and `palette` may be left out. `ValueError` names the file and what is wrong.
    """
    path = folder / LABELS_FILE
    if not path.is_file():
        raise ValueError(
            f"the classes of {folder} are not known: give them as options.classes in the recipe, or write {path} with "
            '{"classes": ["sky", ...], "void": 255}'
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=distinct_keys)
        return Labels(**values)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Pairs:
    """The photos of a split and their masks, in order."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)


def folder_pairs(root: str | Path, split: str) -> Pairs:
    """Pairs of `root/SPLIT/*` (photos) and `root/SPLITannot/*` (masks) with equal names but for the ending.

    `ValueError` names a folder that is missing or empty, and files without partner.
    """
    photos, masks = (_by_stem(Path(root) / name) for name in (split, f"{split}annot"))
    alone = [f"the photo {photos[name]} has no mask" for name in sorted(photos.keys() - masks.keys())]
    alone += [f"the mask {masks[name]} has no photo" for name in sorted(masks.keys() - photos.keys())]
    if alone:
        more = f" (and {len(alone) - 1} more files without partner)" if len(alone) > 1 else ""
        raise ValueError(f"{alone[0]}{more}: names must be equal but for the ending")
    names = sorted(photos)
    return Pairs(tuple(photos[name] for name in names), tuple(masks[name] for name in names))


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(
            f"there is no folder {folder}: photos belong in SPLIT/ (train, val, test), masks in SPLITannot/"
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_ENDINGS or path.name.startswith("."):
            continue
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path.name} have the same name: keep one of them")
        files[path.stem] = path
    if not files:
        raise ValueError(f"{folder} holds no picture ({', '.join(IMAGE_ENDINGS)})")
    return files


def voc_pairs(root: str | Path, split: str) -> Pairs:
    """VOC 2012 from `root/VOCdevkit/VOC2012`: `train` (1,464), `val` (1,449), `trainval`, or `train_aug` (10,582).

    `train_aug` is VOC's train split with all of SBD but VOC's val split. It is read from VOC's own list
    `ImageSets/Segmentation/trainaug.txt` with the masks in `SegmentationClassAug` where these exist, else from SBD's
    release in `root/sbd` (img, cls, train.txt, val.txt). Photos that both have take VOC's finer masks.
    `ValueError` names what is missing.
    """
    root = Path(root)
    voc = root / "VOCdevkit" / "VOC2012"
    if not voc.is_dir():
        raise ValueError(f"there is no {voc}: unpack VOCtrainval_11-May-2012.tar in {root}")
    if split != "train_aug":
        return _voc_split(root, split)
    listed, masks = voc / "ImageSets" / "Segmentation" / "trainaug.txt", voc / "SegmentationClassAug"
    if listed.is_file() and masks.is_dir():
        names = listed.read_text(encoding="utf-8").split()
        return _existing([voc / "JPEGImages" / f"{n}.jpg" for n in names], [masks / f"{n}.png" for n in names])
    sbd = root / "sbd"
    if not sbd.is_dir():
        raise ValueError(
            f"train_aug needs SBD's masks: put its img, cls, train.txt, val.txt in {sbd}, or give {listed}"
        )
    require("scipy", "figures")
    train, held_out = _voc_split(root, "train"), {path.stem for path in _voc_split(root, "val").images}
    chosen = {image.stem: (image, mask) for image, mask in zip(train.images, train.masks, strict=True)}
    for part in ("train", "val"):
        try:
            more = SBDataset(str(sbd), image_set=part, mode="segmentation")
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{sbd} is not SBD's release: {error}") from error
        for image, mask in zip(map(Path, more.images), map(Path, more.masks), strict=True):
            if image.stem not in held_out:
                chosen.setdefault(image.stem, (image, mask))
    names = sorted(chosen)
    return _existing([chosen[name][0] for name in names], [chosen[name][1] for name in names])


def _voc_split(root: Path, split: str) -> Pairs:
    try:
        listed = VOCSegmentation(str(root), year="2012", image_set=split)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"VOC has no split {split!r} in {root} (train, val, trainval, train_aug): {error}") from error
    return _existing([Path(image) for image in listed.images], [Path(mask) for mask in listed.masks])


def _existing(images: Sequence[Path], masks: Sequence[Path]) -> Pairs:
    for path in (*images, *masks):
        if not path.is_file():
            raise ValueError(f"{path} is listed but missing: unpack the data set again")
    if not images:
        raise ValueError("the split lists no photo")
    return Pairs(tuple(images), tuple(masks))


def read_mask(path: Path, labels: Labels) -> np.ndarray:
    """uint8 (H, W): class numbers, and `IGNORE` where the file has `labels.void` (or 255).

    `UnreadableSample` for a broken file; `ValueError` for a colour picture and for a value outside the classes.
    """
    mode = "L"
    try:
        if path.suffix == ".mat":
            values = require("scipy.io", "figures").loadmat(path)["GTcls"][0]["Segmentation"][0]
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata, large pictures below the bound
                with Image.open(path) as file:
                    mode, values = file.mode, np.array(file)
    except MissingExtra:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... for broken files
        raise UnreadableSample(str(path), error or type(error).__name__) from error
    if mode not in MASK_MODES:
        raise ValueError(
            f"{path} is a picture of mode {mode}: a mask holds one class number (0..255) a pixel, as an 8-bit grey or "
            "palette PNG"
        )
    void = (values == labels.void) | (values == IGNORE)
    outside = (values >= len(labels.classes)) & ~void
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{path} has the value {values[row, column]} at row {row}, column {column}; there are "
            f"{len(labels.classes)} classes (0..{len(labels.classes) - 1}) and void is {labels.void}"
        )
    return np.where(void, IGNORE, values).astype(np.uint8)


class MaskSamples:
    """A split as samples: `image` float32 (3, H, W), normalised, and `target` int64 (H, W) with `IGNORE` for void.

    scale: the range of random scales in training; None to test. size: the crop (height, width) in training; in testing
    photos are padded to it at the right and bottom, or left at their own size where it is None.
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
    ) -> None:
        self.pairs, self.labels, self.size, self.mean, self.std = pairs, labels, size, mean, std
        if scale is not None and size is None:
            raise ValueError("training needs a crop size")
        self.augment = train_transform(size, scale, mean) if scale is not None and size is not None else None

    def __len__(self) -> int:
        return len(self.pairs)

    def path(self, index: int) -> str:
        return str(self.pairs.images[index])

    def read(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """The photo and its mask as they are. `ValueError` where their sizes differ."""
        photo, mask = read_rgb(self.pairs.images[index]), read_mask(self.pairs.masks[index], self.labels)
        if photo.size != mask.shape[::-1]:
            raise ValueError(
                f"the mask {self.pairs.masks[index]} is {mask.shape[1]} x {mask.shape[0]}, its photo "
                f"{self.pairs.images[index]} {photo.width} x {photo.height}: they must have the same size"
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
                with Image.open(path) as file:
                    size = file.size[::-1] if file.getexif().get(ORIENTATION, 1) > 4 else file.size
            except (OSError, SyntaxError):
                continue  # met again, and reported, when it is read
            if self.size is not None:
                size = max(size[0], self.size[1]), max(size[1], self.size[0])
            first = first or (size, path)
            if size != first[0]:
                raise ValueError(
                    f"photos of different sizes cannot be tested {batch_size} at a time ({first[1]}: {first[0][0]} x "
                    f"{first[0][1]}, {path}: {size[0]} x {size[1]}): set val_batch_size=1, or a larger image_size"
                )
