"""From a picture's file to a network's input, for training and for testing: timm's transforms, and what they lack."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import posterize
from timm.data.transforms import RandomResizedCropAndInterpolation, str_to_interp_mode
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, RandomRotation
from torchvision.transforms import functional as F

from elastic_cnn.data.picture_kinds import Reading
from elastic_cnn.data.pixels import Source, read_picture, read_rgb

CROP_MODES = ("center", "border", "squash")
CROP_MARGIN = 1.25  # photos kept in memory are larger than the network's input by so much, for random crops
WIDEST = 32  # times the input's own aspect; of longer pictures the middle is enough for a centre crop
Picture = Image.Image | Tensor
Transform = Callable[[Any], Any]  # a `Preparation`, or a function of an RGB picture


@dataclass(frozen=True)
class Geometry:
    """What training may do to the shape of a picture, and what testing does.

    hflip, vflip: probability of mirroring left and right, top and bottom. rotation: largest angle of a random rotation,
    in degrees; corners show the mean colour. quarter_turns: random turns by 90 degrees (180 where the input is no
    square). crop_mode: `center` keeps the shape of things and loses the ends of long pictures, `border` keeps all and
    fills up with the mean colour, `squash` keeps all and distorts.
    """

    hflip: float = 0.5
    vflip: float = 0.0
    rotation: float = 0.0
    quarter_turns: bool = False
    crop_mode: str = "center"


WHOLE, REAL, FLAG = "[0-9]+", r"[0-9]+(\.[0-9]*)?", "[01]"
POLICIES: dict[str, dict[str, str]] = {  # timm's, and what may follow a dash: a key and its value
    "rand": {"m": WHOLE, "n": WHOLE, "p": REAL, "mstd": REAL, "mmax": WHOLE, "inc": FLAG, "t": "weights|3a|3aw"},
    "augmix": {"m": WHOLE, "w": WHOLE, "d": WHOLE, "a": REAL, "b": FLAG, "mstd": REAL},
    **{name: {"mstd": REAL} for name in ("original", "originalr", "v0", "v0r", "3a")},
}


def check_policy(text: str) -> None:
    """`ValueError` where `text` is no policy of timm's (`auto_augment`), or has a part that timm would ignore."""
    name, *parts = text.split("-")
    if name not in POLICIES:
        raise ValueError(f"auto_augment={text!r:.80} begins with none of timm's policies: {', '.join(POLICIES)}")
    said: set[str] = set()
    for part in parts:
        key = next((key for key, value in POLICIES[name].items() if re.fullmatch(f"{key}({value})", part)), None)
        if key is None or key in said:
            raise ValueError(
                f"auto_augment={text!r:.80}: {part!r:.40} {'is no part of ' + name if key is None else 'comes twice'}; "
                f"{name} takes {', '.join(POLICIES[name])}, each once and with its value, as in mstd0.5"
            )
        said.add(key)


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's; black where no bits are left, as Pillow had it before 13, which refuses that."""
    return posterize(picture, bits) if bits > 0 else Image.new(picture.mode, picture.size)


def _with_every_level(colours: Sequence[Any]) -> Sequence[Any]:
    """timm's changes of colour, with `_posterize` in place of its own."""
    for policy in colours:
        for op in [*getattr(policy, "ops", ()), *chain.from_iterable(getattr(policy, "policy", ()))]:
            if op.aug_fn is posterize:
                op.aug_fn = _posterize
    return colours


class Preparation:
    """A picture, or its file, to the network's input: `(channels, H, W)`.

    Pictures are RGB ones of Pillow's, or float tensors `(channels, H, W)` where the network takes other than 3
    channels; `ValueError` for anything else.
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any]], reading: Reading) -> None:
        self.steps, self.reading = Compose(steps), reading

    def read(self, source: Source, name: str | None = None) -> Tensor:
        """The input from a file. `UnreadableSample` where it is broken or does not fit."""
        return self.steps(read_picture(source, name, self.reading))

    def __call__(self, picture: Picture) -> Tensor:
        check_picture(picture, self.reading.channels)
        return self.steps(picture)


def check_picture(picture: object, channels: int = 3) -> None:
    """`ValueError` where `picture` is not what `Preparation` takes."""
    if channels == 3:
        wanted, fits = "an RGB picture of Pillow's", isinstance(picture, Image.Image) and picture.mode == "RGB"
    else:
        wanted = f"a float tensor ({channels}, H, W) in 0..1"
        fits = isinstance(picture, Tensor) and picture.is_floating_point() and picture.shape[:-2] == (channels,)
    if fits:
        return
    what: object = type(picture).__name__
    if isinstance(picture, Image.Image):
        what = f"one of mode {picture.mode}"
    elif isinstance(picture, Tensor | np.ndarray):
        what = f"{what} of shape {tuple(picture.shape)} and type {picture.dtype}"
    raise ValueError(f"the input must be {wanted}, not {what}")


def prepare(transform: Transform, source: Source, name: str | None = None) -> Any:
    """The input from a file, by a `Preparation` or another function of an RGB picture."""
    read = getattr(transform, "read", None)
    return transform(read_rgb(source, name)) if read is None else read(source, name)


@dataclass(frozen=True)
class Stages:
    """The parts of a training transform in order: crop, flips, turns, changes of colour, normalisation."""

    crop: "RandomCrop"
    flips: Sequence[Any]
    turns: Sequence[Any]
    colours: Sequence[Any]
    final: Sequence[Any]


def train_transform(
    size: int | tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    interpolation: str = "bilinear",
    min_scale: float = 0.08,
    color_jitter: float = 0.0,
    auto_augment: str | None = None,
    erase: float = 0.0,
    loading: str = "exact",
    geometry: Geometry = Geometry(),
    reading: Reading | None = None,
) -> "Preparation":
    """Random resized crop and flip, and what is asked for beyond -> (channels, H, W) floats, normalised.

    size: a side, or height and width. loading: `exact` as said; `fast` -> (3, H, W) uint8 by `FastTrainTransform`, to
    be normalised on the device. `ValueError` where fast loading, or a network of other than 3 channels, cannot have
    what is asked for, and for a policy that is none of timm's.
    """
    reading = reading or Reading(len(mean))
    if auto_augment is not None:
        check_policy(auto_augment)
    height, width = (size, size) if isinstance(size, int) else size
    if reading.channels != 3 and (color_jitter or auto_augment):
        raise ValueError(
            f"color_jitter and auto_augment are for 3 channels, the network takes {reading.channels}: leave them out"
        )
    primary, secondary, final = create_transform(
        (height, width),
        is_training=True,
        scale=(min_scale, 1.0),
        hflip=geometry.hflip,
        vflip=geometry.vflip,
        color_jitter=color_jitter or None,  # type: ignore[arg-type]  # 0 would take time
        auto_augment=auto_augment,
        re_prob=erase,
        re_mode="pixel",
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
        separate=True,
    )
    turns: list[Any] = [QuarterTurns(square=height == width)] if geometry.quarter_turns else []
    if geometry.rotation:
        turns.append(RandomRotation(geometry.rotation, InterpolationMode.BILINEAR, fill=fill_colour(mean)))
    crop = RandomCrop((height, width), min_scale, interpolation, geometry.crop_mode, mean)
    stages = Stages(crop, primary.transforms[1:], turns, _with_every_level(secondary.transforms), final.transforms)
    if loading == "fast":
        from elastic_cnn.data.fast_pixels import FastTrainTransform

        if erase:
            raise ValueError("fast loading cannot erase, which comes after the normalisation: take loading=exact")
        return FastTrainTransform(stages, interpolation, reading)
    return Preparation([stages.crop, *stages.flips, *stages.turns, *stages.colours, *stages.final], reading)


def eval_transform(
    size: tuple[int, int] = (224, 224),
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    interpolation: str = "bilinear",
    crop_pct: float = 0.875,
    crop_mode: str = "center",
    max_value: float | None = None,
    background: Sequence[int] = (255, 255, 255),
) -> Preparation:
    """The test input of a network, from the fields of a checkpoint's `InputSpec` -> (channels, H, W), normalised."""
    height, width = size
    reading = Reading(len(mean), max_value, (background[0], background[1], background[2]))
    first: list[Any] = []
    if crop_mode == "border":
        first = [Fit((height, width), interpolation, mean)]
    elif crop_mode == "center":
        first = [Middle(WIDEST * max(width / height, height / width))]
    rest = create_transform(
        (len(mean), height, width),
        is_training=False,
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=crop_pct if crop_mode == "center" else 1.0,
        crop_mode="center" if crop_mode == "center" else "squash",
    )
    return Preparation([*first, *rest.transforms], reading)


def centre_square(photo: Image.Image, side: int) -> Image.Image:
    """The largest square in the middle, resized."""
    short = min(photo.size)
    left, top = (photo.width - short) / 2, (photo.height - short) / 2
    return photo.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))


@lru_cache(maxsize=256)  # many photos are of one size
def _blank(height: int, width: int) -> Tensor:
    """A picture without pixels."""
    return torch.empty((3, height, width), device="meta")


def fill_colour(mean: Sequence[float]) -> Any:
    """What borders show: the mean, as a colour for Pillow's pictures."""
    return [round(255 * value) for value in mean] if len(mean) == 3 else list(mean)


def height_width(picture: Picture) -> tuple[int, int]:
    """Height and width."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    _, height, width = F.get_dimensions(picture)
    return height, width


def _canvas(picture: Picture, size: tuple[int, int], mean: Sequence[float]) -> Picture:
    """A picture of the same kind in the mean colour."""
    if isinstance(picture, Image.Image):
        return Image.new("RGB", size[::-1], tuple(fill_colour(mean)))
    return torch.tensor(tuple(mean), dtype=picture.dtype)[:, None, None].repeat(1, *size)


def _paste(canvas: Picture, part: Picture, top: int, left: int) -> Picture:
    if isinstance(canvas, Image.Image) and isinstance(part, Image.Image):
        canvas.paste(part, (left, top))
    elif isinstance(canvas, Tensor) and isinstance(part, Tensor):
        canvas[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return canvas


class Middle:
    """Cut pictures that are far too long to what lies around their middle, before anything is scaled up."""

    def __init__(self, most: float) -> None:
        self.most = most  # the long side, in short ones

    def __call__(self, picture: Picture) -> Picture:
        height, width = height_width(picture)
        most = math.ceil(self.most * min(height, width))
        return picture if max(height, width) <= most else F.center_crop(picture, [min(height, most), min(width, most)])


class Fit:
    """The whole picture, in its own shape, in the middle of `size` (height, width) filled with the mean colour."""

    def __init__(self, size: tuple[int, int], interpolation: str, mean: Sequence[float]) -> None:
        self.size, self.mean, self.interpolation = size, mean, str_to_interp_mode(interpolation)

    def __call__(self, picture: Picture) -> Picture:
        height, width = height_width(picture)
        scale = min(self.size[0] / height, self.size[1] / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small = F.resize(picture, [rows, columns], self.interpolation, antialias=True)
        top, left = (self.size[0] - rows) // 2, (self.size[1] - columns) // 2
        return _paste(_canvas(picture, self.size, self.mean), small, top, left)


class QuarterTurns:
    """A random turn by 0, 90, 180 or 270 degrees; by 0 or 180 where the input is no square."""

    def __init__(self, square: bool) -> None:
        self.angles = (0, 90, 180, 270) if square else (0, 180)

    def __call__(self, picture: Picture) -> Picture:
        angle = random.choice(self.angles)
        return F.rotate(picture, angle) if angle else picture


class RandomCrop(RandomResizedCropAndInterpolation):
    """timm's random resized crop, for inputs that are no squares and for the ways of `crop_mode`.

    The crop's shape is that of the input, times 3/4 to 4/3; under `squash` that of the whole picture; under `border`
    it is drawn from the picture with its borders.
    """

    def __init__(
        self, size: tuple[int, int], min_scale: float, interpolation: str, crop_mode: str, mean: Sequence[float]
    ) -> None:
        super().__init__(size, scale=(min_scale, 1.0), interpolation=interpolation)
        self.crop_mode, self.mean = crop_mode, mean

    def draw(self, height: int, width: int, picture: Picture | None = None) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop from a picture of these sides; parts may lie beyond, in borders.

        picture: itself, where it is at hand (it saves time).
        """
        target = self.size[1] / self.size[0]
        top = left = 0
        shape = width / height if self.crop_mode == "squash" else target
        if self.crop_mode == "border":
            rows, columns = max(height, math.ceil(width / target)), max(width, math.ceil(height * target))
            top, left = (rows - height) // 2, (columns - width) // 2
            height, width, picture = rows, columns, None
        if picture is None:
            picture = _blank(height, width)
        ratio = tuple(part * shape for part in self.ratio)
        down, right, rows, columns = self.get_params(picture, self.scale, ratio)
        return down - top, right - left, rows, columns

    def __call__(self, img: Picture) -> Picture:
        height, width = height_width(img)
        top, left, rows, columns = self.draw(height, width, img)
        if top >= 0 and left >= 0 and top + rows <= height and left + columns <= width:
            return F.resized_crop(img, top, left, rows, columns, list(self.size), self.interpolation)
        up, before = max(0, top), max(0, left)
        down, behind = min(height, top + rows), min(width, left + columns)
        canvas = _canvas(img, self.size, self.mean)
        if up >= down or before >= behind:  # borders alone
            return canvas
        edges = [round((edge - top) * self.size[0] / rows) for edge in (up, down)]
        sides = [round((edge - left) * self.size[1] / columns) for edge in (before, behind)]
        inner = [max(1, edges[1] - edges[0]), max(1, sides[1] - sides[0])]
        part = F.resized_crop(img, up, before, down - up, behind - before, inner, self.interpolation)
        return _paste(canvas, part, min(edges[0], self.size[0] - 1), min(sides[0], self.size[1] - 1))
