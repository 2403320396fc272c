"""Training pictures at twice the usual speed: the crop is drawn first, the file is decoded no larger than it needs, the
crop is resized as 8-bit integers by torch's vector code, and the normalisation is left to the device.

Draws the same random numbers as the exact form (`transforms.py`), so the same crops and flips. Pixels differ by at most
2 levels of 255 where the file is decoded whole. Where the crop is at least twice the input's sides, the file is decoded
at 1/2, 1/4 or 1/8, with a mean difference of about 1.5 levels in photos.

JPEG files are decoded by simplejpeg where it is installed (extra `data`), else by Pillow: the same pixels, slower.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import Compose, PILToTensor, RandomHorizontalFlip

from elastic_cnn.data.picture_kinds import MOST_ASPECT, RGB, Reading
from elastic_cnn.data.pixels import Source, opened, read_content, read_rgb
from elastic_cnn.data.transforms import Preparation, Stages, check_picture

try:
    simplejpeg: Any = importlib.import_module("simplejpeg")
except ImportError:  # the same pixels by Pillow
    simplejpeg = None

REDUCTIONS = (8, 4, 2)
PILLOW_MODES = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MOST_PIXELS = 2**26  # larger files are left to Pillow, with its bound against decompression bombs
HEAD = 2**16  # bytes in which a file's EXIF begins


class FastTrainTransform(Preparation):
    """The contents of a picture's file -> (3, H, W) uint8, cropped, flipped and augmented; `normalise` does the rest.

    stages: as `train_transform` makes them. Raises `ValueError` for an interpolation that is neither bilinear nor
    bicubic, for other than 3 channels, and for crops that need borders.
    """

    def __init__(self, stages: Stages, interpolation: str = "bilinear", reading: Reading = RGB) -> None:
        if interpolation not in PILLOW_MODES:
            raise ValueError(
                f"fast loading resizes {' or '.join(PILLOW_MODES)}, not {interpolation!r}: take loading=exact"
            )
        if reading.channels != 3:
            raise ValueError(f"fast loading is for 3 channels, not {reading.channels}: take loading=exact")
        if stages.crop.crop_mode == "border":
            raise ValueError("fast loading cannot add borders (crop_mode=border): take loading=exact")
        self.size, self.interpolation, self.reading = stages.crop.size, interpolation, reading
        self.crop = stages.crop
        self.flips = [(2 if isinstance(flip, RandomHorizontalFlip) else 1, flip.p) for flip in stages.flips]
        later = [*stages.turns, *stages.colours]
        self.augment = Compose([*later, PILToTensor()]) if later else None

    def read(self, source: Source, name: str | None = None) -> Tensor:
        """The training input of a file. `UnreadableSample` where it is broken."""
        content = read_content(source, name)
        width, height = _jpeg_size(content)
        picture: Image.Image | None = None
        if not width:
            picture = read_rgb(content, name, self.reading)
            width, height = picture.size
        top, left, rows, columns = self.crop.draw(height, width)
        reduction, pixels = 1, None
        if picture is None:
            reduction = next((r for r in REDUCTIONS if rows >= r * self.size[0] and columns >= r * self.size[1]), 1)
            pixels = _decode(content, width, height, reduction)  # (H, W, 3)
        if pixels is None:  # of another kind, odd or broken: Pillow decides
            reduction, pixels = 1, np.asarray(picture or read_rgb(content, name, self.reading))
        if reduction > 1:  # the crop's corners lie between pixels: Pillow resizes from there, and has little to do
            height, width = pixels.shape[:2]
            right, below = min(left + columns, width * reduction), min(top + rows, height * reduction)
            box = (left / reduction, top / reduction, right / reduction, below / reduction)
            small = Image.fromarray(pixels).resize(self.size[::-1], PILLOW_MODES[self.interpolation], box=box)
            return self._finish(torch.from_numpy(np.array(small)).permute(2, 0, 1))
        return self._finish(self._resized(pixels[top : top + rows, left : left + columns]))

    def __call__(self, picture: Image.Image) -> Tensor:  # type: ignore[override]
        """The same for a picture that was read elsewhere."""
        check_picture(picture)
        top, left, rows, columns = self.crop.draw(picture.height, picture.width)
        return self._finish(self._resized(np.asarray(picture)[top : top + rows, left : left + columns]))

    def _resized(self, pixels: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, *size) uint8, with a filter as wide as the reduction, as Pillow's."""
        if not (pixels.flags.c_contiguous and pixels.flags.writeable):
            pixels = pixels.copy()
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return functional.interpolate(
            image, size=self.size, mode=self.interpolation, antialias=True, align_corners=False
        )[0]

    def _finish(self, image: Tensor) -> Tensor:
        """Flip and augment: (3, H, W) uint8 -> the same."""
        for axis, probability in self.flips:
            if torch.rand(1) < probability:
                image = image.flip(axis)
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
    if content[:2] != b"\xff\xd8" or content.find(b"Exif\0", 0, HEAD) >= 0:  # to be turned, perhaps
        return 0, 0
    try:
        if simplejpeg is not None:
            height, width, space, _ = simplejpeg.decode_jpeg_header(content)
            bounded = width * height < MOST_PIXELS and max(width, height) <= MOST_ASPECT * min(width, height)
            return (width, height) if space in ("YCbCr", "Gray") and bounded else (0, 0)
        with opened(content, formats=("JPEG",)) as image:
            return image.size if image.mode in ("RGB", "L") else (0, 0)
    except Exception:  # Pillow says what is wrong when it reads the picture
        return 0, 0


def _decode(content: bytes, width: int, height: int, reduction: int) -> np.ndarray | None:
    """(H, W, 3) uint8 of a JPEG at 1/reduction; None where it is not whole."""
    try:
        if simplejpeg is not None:
            least = (-(-height // reduction), -(-width // reduction)) if reduction > 1 else (0, 0)
            return simplejpeg.decode_jpeg(content, "RGB", min_factor=reduction, min_height=least[0], min_width=least[1])
        with opened(content, formats=("JPEG",)) as image:
            if reduction > 1:
                image.draft(image.mode, (width // reduction, height // reduction))
            return np.asarray(image.convert("RGB"))
    except Exception:  # decoders raise ValueError, OSError, SyntaxError
        return None
