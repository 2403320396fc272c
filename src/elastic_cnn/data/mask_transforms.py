"""Photo and mask together, for training and testing: torchvision's v2 transforms on `tv_tensors`.

A photo is an `Image` (C, H, W), uint8 or floats in 0..1, its mask a uint8 `Mask` (H, W). Photos are resized
bilinearly, masks to the nearest; new border is the mean colour in the photo and `IGNORE` in the mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from elastic_cnn.data.transforms import Geometry

AS_THE_PAPER = Geometry()
IGNORE = 255  # the value of pixels that do not count, whatever it was in the file

Pair = tuple[tv_tensors.Image, tv_tensors.Mask]


class RandomScale(v2.Transform):
    """Height and width times one factor, drawn evenly from `low` to `high`."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        factor = float(torch.empty(()).uniform_(self.low, self.high))
        height, width = F.get_size(flat_inputs[0])
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Image) and tuple(params["size"]) == (
            1,
            1,
        ):  # torch's kernel for bytes fails on a single pixel
            whole = inpt.as_subclass(torch.Tensor).float().mean((-2, -1), keepdim=True)
            whole = whole if inpt.is_floating_point() else whole.round().to(inpt.dtype)
            return tv_tensors.wrap(whole, like=inpt)
        return F.resize(inpt, params["size"], antialias=True)


def _fill(mean: Sequence[float]) -> dict[type, Any]:
    """The mean colour, of bytes for 3 channels and of floats for others (as `read_picture` gives them), and void."""
    white = 255 if len(mean) == 3 else 1
    return {tv_tensors.Image: [white * value for value in mean], tv_tensors.Mask: IGNORE}


def train_transform(
    size: tuple[int, int], scale: tuple[float, float], mean: Sequence[float], geometry: Geometry = AS_THE_PAPER
) -> v2.Transform:
    """The paper's augmentation: random scale, random crop of `size`, padded where the photo is smaller, random flip.

    geometry: its hflip, vflip and rotation; corners that a rotation uncovers are void.
    """
    steps: list[v2.Transform] = [RandomScale(*scale)]
    if geometry.rotation:
        steps.append(v2.RandomRotation(geometry.rotation, v2.InterpolationMode.BILINEAR, fill=_fill(mean)))
    steps.append(v2.RandomCrop(size, pad_if_needed=True, fill=_fill(mean)))
    for probability, flip in ((geometry.hflip, v2.RandomHorizontalFlip), (geometry.vflip, v2.RandomVerticalFlip)):
        if probability:
            steps.append(flip(probability))
    return v2.Compose(steps)


def pad_to(pair: Pair, size: tuple[int, int], mean: Sequence[float]) -> Pair:
    """Grow both to at least `size` (height, width) at the right and the bottom; larger ones are left as they are."""
    height, width = F.get_size(pair[0])
    border = [0, 0, max(0, size[1] - width), max(0, size[0] - height)]  # left, top, right, bottom
    return v2.Pad(border, fill=_fill(mean))(*pair) if any(border) else pair


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8, or floats in 0..1, `(C, H, W)` -> float32 of that shape, less `mean` and over `std` of each channel."""
    return F.normalize(F.to_dtype(image, torch.float32, scale=True), list(mean), list(std)).as_subclass(Tensor)
