"""Training pictures at twice the usual speed: the crop is drawn first, the file is decoded no larger than it needs, the
crop is resized as 8-bit integers by torch's vector code, and the normalisation is left to the device.

Draws the same random numbers as `image_folder.train_transform`, so the same crops and flips. Pixels differ by at most 2
levels of 255 where the file is decoded whole. Where the crop is at least twice the input's side, the file is decoded at
1/2, 1/4 or 1/8, with a mean difference of about 1.5 levels in photos.

JPEG files are decoded by simplejpeg where it is installed (extra `data`), else by Pillow: the same pixels, slower.
"""

import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import Compose, PILToTensor

from elastic_cnn.data.pixels import read_rgb

try:
    simplejpeg: Any = importlib.import_module("simplejpeg")
except ImportError:  # the same pixels by Pillow
    simplejpeg = None

REDUCTIONS = (8, 4, 2)
PILLOW_MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MOST_PIXELS = 2**26  # larger files are left to Pillow, with its bound against decompression bombs
HEAD = 2**16  # bytes in which a file's EXIF begins


class FastTrainTransform:
    """The contents of a picture's file -> (3, size, size) uint8, cropped, flipped and augmented.

    Arguments as of `train_transform`, but for mean, std and erase: `normalise` does the rest on the device.
    Raises `ValueError` for an interpolation that is neither bilinear nor bicubic.
    """

    def __init__(
        self,
        size: int,
        interpolation: str = "bilinear",
        min_scale: float = 0.08,
        color_jitter: float = 0.0,
        auto_augment: str | None = None,
    ) -> None:
        if interpolation not in PILLOW_MODES:
            raise ValueError(
                f"fast loading resizes {' or '.join(PILLOW_MODES)}, not {interpolation!r}: take loading=exact"
            )
        self.size, self.interpolation = size, interpolation
        primary, secondary, _ = create_transform(
            size,
            is_training=True,
            scale=(min_scale, 1.0),
            color_jitter=color_jitter or None,  # type: ignore[arg-type]  # None leaves it out
            auto_augment=auto_augment,
            interpolation=interpolation,
            separate=True,
        )
        self.crop, self.flip = primary.transforms
        assert isinstance(self.crop, RandomResizedCropAndInterpolation)
        self.augment = Compose([*secondary.transforms, PILToTensor()]) if secondary.transforms else None

    def read(self, content: bytes, name: str) -> Tensor:
        """The training input of a file. `UnreadableSample` where it is broken."""
        width, height = _jpeg_size(content)
        picture: Image.Image | None = None
        if not width:
            picture = read_rgb(content, name)
            width, height = picture.size
        blank = torch.empty((3, height, width), device="meta")
        top, left, rows, columns = self.crop.get_params(blank, self.crop.scale, self.crop.ratio)
        reduction, pixels = 1, None
        if picture is None:
            reduction = next((r for r in REDUCTIONS if min(rows, columns) >= r * self.size), 1)
            pixels = _decode(content, width, height, reduction)  # (H, W, 3)
        if pixels is None:  # of another kind, odd or broken: Pillow decides
            reduction, pixels = 1, np.asarray(picture or read_rgb(content, name))
        if reduction > 1:  # the crop's corners lie between pixels: Pillow resizes from there, and has little to do
            height, width = pixels.shape[:2]
            box = (left, top, min(left + columns, width * reduction), min(top + rows, height * reduction))
            small = Image.fromarray(pixels).resize(
                (self.size, self.size), PILLOW_MODES[self.interpolation], box=tuple(edge / reduction for edge in box)
            )
            return self._finish(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        return self._finish(self._resized(pixels[top : top + rows, left : left + columns]))

    def __call__(self, picture: Image.Image) -> Tensor:
        """The same for a picture that was read elsewhere."""
        width, height = picture.size
        blank = torch.empty((3, height, width), device="meta")
        top, left, rows, columns = self.crop.get_params(blank, self.crop.scale, self.crop.ratio)
        return self._finish(self._resized(np.asarray(picture)[top : top + rows, left : left + columns]))

    def _resized(self, pixels: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, size, size) uint8, with a filter as wide as the reduction, as Pillow's."""
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
        return functional.interpolate(
            image, size=(self.size, self.size), mode=self.interpolation, antialias=True, align_corners=False
        )[0]

    def _finish(self, image: Tensor) -> Tensor:
        """Flip and augment: (3, size, size) uint8 -> the same."""
        if torch.rand(1) < self.flip.p:
            image = image.flip(2)
        if self.augment is not None:
            image = self.augment(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
        return image.contiguous()


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, 3, H, W) uint8 -> float32, as torchvision's `ToTensor` and `Normalize` do, to the bit; others unchanged."""
    if images.dtype != torch.uint8:
        return images
    mean_, std_ = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    return (images.float() / 255).sub_(mean_).div_(std_)


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Width and height of a plain JPEG, from its head; 0 where the file is of another kind or needs Pillow's care."""
    if content[:2] != b"\xff\xd8" or b"Exif\0" in content[:HEAD]:  # to be turned, perhaps
        return 0, 0
    try:
        if simplejpeg is not None:
            height, width, space, _ = simplejpeg.decode_jpeg_header(content)
            return (width, height) if space in ("YCbCr", "Gray") and width * height < MOST_PIXELS else (0, 0)
        with Image.open(io.BytesIO(content)) as image:
            if image.format != "JPEG" or image.mode not in ("RGB", "L"):
                return 0, 0
            return image.size
    except Exception:  # Pillow says what is wrong when it reads the picture
        return 0, 0


def _decode(content: bytes, width: int, height: int, reduction: int) -> np.ndarray | None:
    """(H, W, 3) uint8 of a JPEG at 1/reduction; None where it is not whole."""
    try:
        if simplejpeg is not None:
            least = (-(-height // reduction), -(-width // reduction)) if reduction > 1 else (0, 0)
            return simplejpeg.decode_jpeg(content, "RGB", min_factor=reduction, min_height=least[0], min_width=least[1])
        with Image.open(io.BytesIO(content)) as image:
            if reduction > 1:
                image.draft(image.mode, (width // reduction, height // reduction))
            return np.asarray(image.convert("RGB"))
    except Exception:  # decoders raise ValueError, OSError, SyntaxError
        return None
