"""The one reader of pictures: files of every kind to RGB pictures or to bands of floats, or a sentence why not.

Turned as EXIF says. More than 8 bits are scaled by the type of the numbers (65535 is white), never by a photo's own
largest value. What is transparent shows a background, never the colours that hide below it.
"""

import importlib
import importlib.util
import io
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from elastic_cnn.data.left_out import once
from elastic_cnn.data.sampler import UnreadableSample

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")  # no EPS: it starts a program
JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
ENDINGS = (*JPEG_ENDINGS, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif")
HEIF_ENDINGS = (".heic", ".heif")
ARRAYS = ".npy"
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 262, 277, 339  # tags of TIFF
MOST_ASPECT = 1000  # longer ones would be scaled up to fill all memory
ARRAY_MAGIC, TIFF_MAGICS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
FEW_LEVELS = 32  # of 256; a picture of more than 8 bits that keeps no more of many draws a notice
SLACK = 1.01  # fractions may pass 1 by so much: rounding, sharpening
OTHERS = {  # how files begin that people take for photos
    b"%PDF": "a PDF document: save its pages as PNG",
    b"%!PS": "a PostScript drawing: save it as PNG",
    b"\xc5\xd0\xd3\xc6": "a PostScript drawing: save it as PNG",
    b"<svg": "an SVG drawing: save it as PNG",
    b"<?xml": "an XML file, perhaps an SVG drawing: save it as PNG",
    b"\x00\x05\x16\x07": "a macOS side file (._NAME), not the photo: remove it",
}
Source = str | Path | bytes | IO[bytes]


class NoPicture(UnreadableSample):
    """The file is of another kind."""


class BadSize(UnreadableSample):
    """More pixels, or longer for its width, than is read."""


@dataclass(frozen=True)
class Reading:
    """How pictures of all kinds become the channels that a network takes.

    channels: 3 reads RGB; 1 reads grey; any other number takes pictures of as many bands alone. max_value: what is
    white in pictures of more than 8 bits; by default the largest value of their type (65535, 1.0 for fractions).
    background: red, green and blue (0..255) that shows where a picture is transparent.
    """

    channels: int = 3
    max_value: float | None = None
    background: tuple[int, int, int] = (255, 255, 255)


RGB = Reading()


@cache
def picture_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read on this machine."""
    if importlib.util.find_spec("pillow_heif") is not None:
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def picture_endings() -> tuple[str, ...]:
    """The endings, in lower case, of files that are taken for pictures on this machine; all but arrays'."""
    return ENDINGS + (HEIF_ENDINGS if "HEIF" in picture_formats() else ())


def is_picture_name(name: str) -> bool:
    """Whether a file is taken for a picture, by its name's ending."""
    return os.path.splitext(name)[1].lower() in (*picture_endings(), ARRAYS)


def read_rgb(source: Source, name: str | None = None, reading: Reading = RGB) -> Image.Image:
    """The picture in a file, upright, mode RGB; the first frame of an animation.

    name: for messages, where `source` is no path. Raises `UnreadableSample` where the file is missing, no regular file,
    empty, truncated or no picture (`NoPicture`), holds more pixels than Pillow's bound against decompression bombs or
    is more than 1000 times as long as wide (`BadSize`), or holds numbers that cannot be colours.
    """
    name = name or _name(source)
    with _reasons(name), _file(source, name) as file:
        if _head(file).startswith(ARRAY_MAGIC):
            return Image.fromarray(_eight_bits(_levels_of_array(_array(file), name, reading))).convert("RGB")
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
            return _tensor(_levels_of_array(_array(file), name, reading))
        if head.startswith(TIFF_MAGICS) and reading.channels not in (1, 3):
            return _tensor(_levels_of_array(_tiff(file), name, reading))
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
        _refuse_endless(source, name)
        with open(source, "rb") as file:
            return file.read()
    except OSError as error:
        raise error if isinstance(error, UnreadableSample) else _told(name, error) from error


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
        raise NoPicture(name, _what_else(_head(file))) from error
    with image:
        check_aspect(image.width, image.height, name)
        yield image


def upright(image: Image.Image) -> Image.Image:
    """The same, turned as EXIF says; what its file's head tells stays with it."""
    ImageOps.exif_transpose(image, in_place=True)
    return image


def check_aspect(width: int, height: int, name: str) -> None:
    """`BadSize` for a picture that is far too long for its width."""
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise BadSize(
            name, f"it has {width} x {height} pixels; a side may be {MOST_ASPECT} times the other: cut or remove it"
        )


def to_rgb(image: Image.Image, reading: Reading = RGB, name: str = "an image") -> Image.Image:
    """Mode RGB from any mode of Pillow's, as `reading` says. `UnreadableSample` for numbers that cannot be colours."""
    if image.mode == "RGB" and "transparency" not in image.info:
        if reading.max_value is not None and _is_deep_colour(image):
            raise UnreadableSample(name, "max_value is for grey; this is a picture of 16 bits a colour")
        _refuse_further_bands(image, name)
        image.load()  # truncated files fail here
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(_levels_of(image, name, reading))).convert("RGB")
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
        _refuse_endless(source, name)
        with open(source, "rb") as file:
            yield file


def _refuse_endless(path: str | Path, name: str) -> None:
    """`NoPicture` for what is no regular file: to open it may wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NoPicture(name, "it is no regular file (a folder, pipe, socket or device): remove it")


def _head(file: IO[bytes]) -> bytes:
    """The first bytes, which stay to be read."""
    file.seek(0)
    head = file.read(16)
    file.seek(0)
    return head


def _what_else(head: bytes) -> str:
    """What a file is that Pillow does not know, and the remedy."""
    text = head.lstrip().lower()
    for start, what in OTHERS.items():
        if text.startswith(start.lower()):
            return f"no picture of a known kind: {what}"
    if head[4:8] == b"ftyp":
        kind = "AVIF" if head[8:12] in (b"avif", b"avis") else "HEIC"
        remedy = "a newer Pillow" if kind == "AVIF" else "the package pillow-heif"
        if head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
            return f"no picture of a known kind: {kind}, broken or not read here: install {remedy}, or save it as JPEG"
        return "no picture of a known kind: it looks like a film"
    if head.startswith(TIFF_MAGICS):
        return "no picture of a known kind: a TIFF of more channels, or of other numbers, than colours have"
    return "it is empty, or no picture of a known kind: replace or remove it"


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
        raise _told(name, error) from error


def _told(name: str, error: Exception) -> UnreadableSample:
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


def _is_deep_colour(image: Image.Image) -> bool:
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _white_of(image: Image.Image) -> float:
    """The largest value of the type that the file's grey numbers have."""
    if image.mode == "F":
        return 1.0
    tags = getattr(image, "tag_v2", {})
    bits, signed = tags.get(BITS_PER_SAMPLE, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    return float(2 ** (bits - signed) - 1)


def _levels_of(image: Image.Image, name: str, reading: Reading) -> np.ndarray:
    """(H, W) in 0..1 of a grey picture of more than 8 bits."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(BITS_PER_SAMPLE, (16,))[0] == 32 and tags.get(SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)
    levels = _scaled(values, reading.max_value or _white_of(image), name)
    if tags.get(PHOTOMETRIC, 1) == 0:
        levels = 1 - levels  # white is 0 in this file
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):  # one grey of a PNG is not to be seen
        levels = np.where(values == hidden, _grey(reading.background), levels)
    return levels


def _scaled(values: np.ndarray, white: float, name: str) -> np.ndarray:
    """float64 in 0..1, `white` as 1. `UnreadableSample` for what is no brightness on that scale."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableSample(name, "it holds values that are not finite: replace or remove it")
    if high > SLACK * white or low < (1 - SLACK) * white:
        raise UnreadableSample(
            name,
            f"its values lie in {low:g}..{high:g}, 0..{white:g} are expected: set max_value, or shift and scale it",
        )
    if white > 255 and 0 < high * 256 / white <= FEW_LEVELS and high > 2 * FEW_LEVELS:
        once(
            "few levels",
            f"{name}: its values reach {high:g} of {white:g}, so nearly all its levels vanish in black: set "
            f"options.max_value={2 ** int(np.ceil(np.log2(high + 1))) - 1} to see them (this is said once)",
        )
    return np.clip(values.astype(np.float64) / white, 0, 1)


def _eight_bits(levels: np.ndarray) -> np.ndarray:
    """0..1 -> uint8."""
    return (levels * 255).astype(np.uint8)


def _grey(colour: Sequence[int]) -> float:
    """The brightness of a colour, in 0..1, as Pillow's."""
    return Image.new("RGB", (1, 1), tuple(colour)).convert("L").getpixel((0, 0)) / 255  # type: ignore[operator]


def _bands_of(image: Image.Image, name: str, reading: Reading) -> Tensor:
    """float32 (C, H, W) in 0..1 of Pillow's picture."""
    channels = reading.channels
    if image.mode.startswith("I") or image.mode == "F":
        levels = _levels_of(image, name, reading)[..., None]
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


def _levels_of_array(values: np.ndarray, name: str, reading: Reading) -> np.ndarray:
    """(H, W, C) in 0..1 from an array (H, W), (H, W, C) or (C, H, W), C as `reading` says; grey for RGB in 3."""
    channels, shape = reading.channels, values.shape
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim == 3 and values.shape[2] not in (channels, 1) and values.shape[0] in (channels, 1):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "buif" or 0 in shape:
        raise UnreadableSample(name, f"an array of shape {shape} and type {values.dtype} is no picture")
    if values.shape[2] == 1 and channels == 3:
        values = values.repeat(3, axis=2)
    if values.shape[2] != channels:
        raise UnreadableSample(name, f"an array of shape {shape} has no side of {channels}, the network's channels")
    check_aspect(values.shape[1], values.shape[0], name)
    white = 1.0 if values.dtype.kind in "bf" else float(np.iinfo(values.dtype).max)
    if values.dtype.kind == "b" or values.dtype.itemsize == 1:
        return values.astype(np.float64) / white
    return _scaled(values, reading.max_value or white, name)
