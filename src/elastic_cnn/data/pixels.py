"""The one reader of pictures: files of every kind to RGB pictures or to bands of floats, or a sentence why not.

Turned as EXIF says. More than 8 bits are scaled by the type of the numbers (65535 is white), never by a photo's own
largest value. What is transparent shows a background, never the colours that hide below it.
"""

import importlib
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from elastic_cnn.data.levels import eight_bits, levels_of_array, levels_of_grey, warn_of_dark_colour
from elastic_cnn.data.picture_kinds import (
    ARRAY_MAGIC,
    RGB,
    TIFF_MAGICS,
    BadSize,
    NoPicture,
    Reading,
    check_aspect,
    picture_formats,
    what_else,
)
from elastic_cnn.data.sampler import UnreadableSample

SAMPLES_PER_PIXEL = 277  # a tag of TIFF
DEEP = "elastic_cnn: 16 bits a colour"  # in a picture's `info`
TURNING = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # keys of `info` that may tell an orientation
AT_ONCE = 2**24  # bytes; larger files are read as their decoders ask
Source = str | Path | bytes | IO[bytes]


def read_rgb(source: Source, name: str | None = None, reading: Reading = RGB) -> Image.Image:
    """The picture in a file, upright, mode RGB; the first frame of an animation.

    name: for messages, where `source` is no path. Raises `UnreadableSample` where the file is missing, no regular file,
    empty, truncated or no picture (`NoPicture`), holds more pixels than Pillow's bound against decompression bombs or
    is more than 1000 times as long as wide (`BadSize`), or holds numbers that cannot be colours.
    """
    name = name or _name(source)
    with _reasons(name), _file(source, name) as file:
        if _head(file).startswith(ARRAY_MAGIC):
            return Image.fromarray(eight_bits(levels_of_array(_array(file), name, reading))).convert("RGB")
        with _opened(file, name) as image:
            return to_rgb(upright(image), reading, name)


def read_bands(source: Source, name: str | None = None, reading: Reading = RGB) -> Tensor:
    """The same as float32 `(reading.channels, H, W)` in 0..1, without a loss of levels.

    Grey and colour are turned into each other for 1 and 3 channels. `UnreadableSample` also where a picture has another
    number of channels than is wanted.
    """
    name = name or _name(source)
    with _reasons(name), _file(source, name) as file:
        head = _head(file)
        if head.startswith(ARRAY_MAGIC):
            return _tensor(levels_of_array(_array(file), name, reading))
        if head.startswith(TIFF_MAGICS) and reading.channels not in (1, 3):
            return _tensor(levels_of_array(_tiff(file), name, reading))
        with _opened(file, name) as image:
            return _bands_of(upright(image), name, reading)


def read_content(source: Source, name: str | None = None) -> bytes:
    """All bytes of a file, for decoders that want them so. `UnreadableSample` where it cannot be read."""
    if isinstance(source, bytes):
        return source
    name = name or _name(source)
    try:
        if not isinstance(source, str | Path):
            return source.read()
        _bytes_of(source, name)
        return _all_of(source)
    except OSError as error:
        raise error if isinstance(error, UnreadableSample) else _unreadable(name, error) from error


def read_picture(source: Source, name: str | None, reading: Reading) -> Image.Image | Tensor:
    """What transforms begin with: an RGB picture, or float bands for a network of other than 3 channels."""
    return (read_rgb if reading.channels == 3 else read_bands)(source, name, reading)


@contextmanager
def opened(source: Source, name: str | None = None, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """The picture in a file, its head read, its pixels not yet; kind and size checked. The first frame; not yet turned.

    formats: those of `FORMATS` to take, all by default. `UnreadableSample` as `read_rgb`, also for what the block
    meets.
    """
    name = name or _name(source)
    with _reasons(name), _file(source, name) as file, _opened(file, name, formats) as image:
        yield image


@contextmanager
def _opened(file: IO[bytes], name: str, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    try:
        image = Image.open(file, formats=formats or picture_formats())
    except UnidentifiedImageError as error:
        raise NoPicture(name, what_else(_head(file))) from error
    with image:
        check_aspect(image.width, image.height, name)
        yield image


def upright(image: Image.Image) -> Image.Image:
    """The same, turned as EXIF says; what its file's head tells stays with it."""
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):  # forgotten once the pixels are read
        image.info[DEEP] = True
    image.load()  # some files tell it behind the pixels
    if hasattr(image, "tag_v2") or any(key in image.info for key in TURNING):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def to_rgb(image: Image.Image, reading: Reading = RGB, name: str = "an image") -> Image.Image:
    """Mode RGB from any mode of Pillow's, as `reading` says. `UnreadableSample` for numbers that cannot be colours."""
    if image.mode == "RGB" and "transparency" not in image.info:
        deep = DEEP in image.info
        if deep and reading.max_value is not None:
            raise UnreadableSample(
                name,
                "max_value is for grey and arrays, this is a picture of 16 bits a colour: save it scaled to 8 bits, or "
                "as .npy",
            )
        _refuse_further_bands(image, name)
        image.load()  # truncated files fail here
        if deep:
            warn_of_dark_colour(image, name)
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(eight_bits(levels_of_grey(image, name, reading))).convert("RGB")
    if _is_transparent(image):
        return _over(image, reading.background)
    return image.convert("RGB")


def _name(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "an image"


@contextmanager
def _file(source: Source, name: str) -> Iterator[IO[bytes]]:
    """The file, open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif not isinstance(source, str | Path):
        yield source
    else:
        if _bytes_of(source, name) <= AT_ONCE:
            yield io.BytesIO(_all_of(source))  # decoders ask for a byte at a time
        else:
            with open(source, "rb") as file:
                yield file


def _bytes_of(path: str | Path, name: str) -> int:
    """The size of a file. `NoPicture` for what is no regular file: to open it may wait for ever."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise NoPicture(name, "it is no regular file (a folder, pipe, socket or device): remove it")
    return found.st_size


def _all_of(path: str | Path) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _head(file: IO[bytes]) -> bytes:
    """The first bytes, which stay to be read."""
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    return head


@contextmanager
def _reasons(name: str) -> Iterator[None]:
    """Whatever goes wrong with a file, in a sentence. Warnings of decoders (odd EXIF) are passed over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableSample:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> UnreadableSample:
    """What decoders and the system raise, as a sentence."""
    if isinstance(error, Image.DecompressionBombError):
        return BadSize(name, f"too large: {error} Shrink or remove it")
    if isinstance(error, FileNotFoundError):
        return UnreadableSample(name, "there is no such file, or a link that leads nowhere")
    if isinstance(error, OSError):
        return UnreadableSample(name, error.strerror or error)
    return UnreadableSample(name, error or type(error).__name__)  # SyntaxError, ValueError, struct.error ...


def _is_transparent(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _over(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """A picture with transparency, laid over a colour: RGB."""
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    below = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")


def _refuse_further_bands(image: Image.Image, name: str) -> None:
    """Pillow leaves out what a TIFF holds beyond red, green and blue."""
    count = getattr(image, "tag_v2", {}).get(SAMPLES_PER_PIXEL, 3)
    if count > 3:
        raise UnreadableSample(name, f"it has {count} channels, the network takes 3")


def _bands_of(image: Image.Image, name: str, reading: Reading) -> Tensor:
    """float32 (C, H, W) in 0..1 of Pillow's picture."""
    channels = reading.channels
    if image.mode.startswith("I") or image.mode == "F":
        levels = levels_of_grey(image, name, reading)[..., None]
        return _tensor(np.repeat(levels, 3, axis=2) if channels == 3 else _fitting(levels, name, channels))
    if channels == 3:
        image = to_rgb(image, reading, name)
    elif channels == 1:
        image = (to_rgb(image, reading, name) if image.mode not in ("1", "L") else image).convert("L")
    elif image.mode == "P" and channels == 4:
        image = image.convert("RGBA")
    values = np.asarray(image)
    return _tensor(_fitting(values.reshape(*values.shape[:2], -1), name, channels) / 255)


def _fitting(values: np.ndarray, name: str, channels: int) -> np.ndarray:
    """(H, W, C), if C is wanted."""
    if values.shape[2] != channels:
        raise UnreadableSample(name, f"it has {values.shape[2]} channel(s), the network takes {channels}")
    return values


def _tensor(levels: np.ndarray) -> Tensor:
    """(H, W, C) -> float32 (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1), dtype=np.float32))


def _array(file: IO[bytes]) -> np.ndarray:
    """The numbers in a .npy file; never code."""
    return np.load(file, allow_pickle=False)


def _tiff(file: IO[bytes]) -> np.ndarray:
    """The numbers in a TIFF of any number of channels: its first series."""
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise ValueError("TIFFs of other than 1 or 3 channels need the package tifffile: install it") from error
    return tifffile.imread(file)
