"""Which files are pictures, by name and by content, and how pictures of all kinds become a network's channels."""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cache

from PIL import Image

from elastic_cnn.data.sampler import UnreadableSample

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")  # no EPS: it starts a program
JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
ENDINGS = (*JPEG_ENDINGS, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif")
HEIF_ENDINGS = (".heic", ".heif")
ARRAYS = ".npy"
MOST_ASPECT = 1000  # longer ones would be scaled up to fill all memory
ARRAY_MAGIC, TIFF_MAGICS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHERS = {  # how files begin that people take for photos
    b"%PDF": "a PDF document: save its pages as PNG",
    b"%!PS": "a PostScript drawing: save it as PNG",
    b"\xc5\xd0\xd3\xc6": "a PostScript drawing: save it as PNG",
    b"<svg": "an SVG drawing: save it as PNG",
    b"<?xml": "an XML file, perhaps an SVG drawing: save it as PNG",
    b"<!doctype html": "a web page, perhaps of a download that failed: download the photo again",
    b"<html": "a web page, perhaps of a download that failed: download the photo again",
    b"version https://": "a pointer of Git LFS, not the photo: fetch it (git lfs pull)",
    b"PK\x03\x04": "a ZIP archive, or a document that is one: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"8BPS": "a Photoshop document: save it as PNG",
    b"\x00\x00\x00\x0cjP": "JPEG 2000: save it as JPEG or PNG",
    b"\x00\x00\x00\x0cJXL": "JPEG XL: save it as JPEG or PNG",
    b"\xff\x0a": "JPEG XL: save it as JPEG or PNG",
    b"\x00\x05\x16\x07": "a macOS side file (._NAME), not the photo: remove it",
}


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


def check_aspect(width: int, height: int, name: str) -> None:
    """`BadSize` for a picture that is far too long for its width."""
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise BadSize(
            name, f"it has {width} x {height} pixels; a side may be {MOST_ASPECT} times the other: cut or remove it"
        )


def what_else(head: bytes) -> str:
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
