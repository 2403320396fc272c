"""Image files to RGB pictures, whatever they hold: turned as EXIF says, 16-bit, CMYK, palette and grey ones too."""

import io
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from elastic_cnn.data.sampler import UnreadableSample


def read_rgb(source: str | Path | bytes | IO[bytes], name: str | None = None) -> Image.Image:
    """The picture in a file, upright, mode RGB; the first frame of an animation.

    name: for messages, where `source` is no path. Raises `UnreadableSample` where the file is missing, empty,
    truncated, no picture, or holds more pixels than Pillow's bound against decompression bombs (the size is named).
    """
    name = name or (str(source) if isinstance(source, str | Path) else "an image")
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF, large pictures below the bound: read all the same
            with Image.open(source) as image:
                return to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise UnreadableSample(name, f"too large: {error} Shrink or remove it") from error
    except UnidentifiedImageError as error:
        raise UnreadableSample(name, "it is empty, or no picture of a known kind: replace or remove it") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... for broken files
        raise UnreadableSample(name, error or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Mode RGB from any mode. 16-bit grey keeps its 8 upper bits; transparency is dropped."""
    if image.mode == "RGB":
        image.load()  # truncated files fail here
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray[Any, Any]:
    """Grey values of more than 8 bits: (H, W) -> (H, W) uint8. Fractions in 0..1 are scaled up, large values down."""
    fractions = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float64))
    top = values.max(initial=0)
    if top > 255:
        values = values / 257  # 65535 -> 255
    elif fractions and 0 < top <= 1:
        values = values * 255
    return values.clip(0, 255).astype(np.uint8)
