"""Files as they come from elsewhere: pictures that are odd but good, and some that cannot be read."""

import io
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(size: tuple[int, int] = (48, 40), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def huge_png(side: int = 20_000) -> bytes:
    """A PNG of `side` x `side` black pixels in some 50 KB: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(bytes(side * (1 + side // 8)), 9)
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)  # one bit a pixel
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), "JPEG", exif=exif)


def good_pictures() -> dict[bytes, bytes]:
    """Name -> content of pictures that must be read, whatever they are; names are bytes, as the system has them."""
    deep = Image.fromarray(np.arange(48 * 40, dtype=np.uint16).reshape(40, 48) * 34)
    frames = {"save_all": True, "append_images": [photo(seed=2)]}
    return {
        b"grey16.png": encoded(deep, "PNG"),
        b"cmyk.jpg": encoded(photo().convert("CMYK"), "JPEG"),
        b"palette.png": encoded(photo().quantize(16), "PNG", transparency=3),
        b"animated.png": encoded(photo(), "PNG", **frames),
        b"animated.webp": encoded(photo(), "WEBP", **frames),
        b"turned.jpg": _turned(),
        b"one_pixel.png": encoded(photo((1, 1)), "PNG"),
        b"a_line.png": encoded(photo((300, 1)), "PNG"),
        b"really_a_png.jpg": encoded(photo(), "PNG"),
        b"name with spaces.png": encoded(photo(), "PNG"),
        b"line\nbreak.png": encoded(photo(), "PNG"),
        b"latin \xe9 and \xff.png": encoded(photo(), "PNG"),
        b"--option.png": encoded(photo(), "PNG"),
        "\u65e5\u672c.png".encode(): encoded(photo(), "PNG"),
    }


def bad_pictures() -> dict[bytes, tuple[bytes, str]]:
    """Name -> (content, word that the message must hold) of files that cannot be read."""
    jpeg, png = encoded(photo((200, 150)), "JPEG"), encoded(photo(), "PNG")
    return {
        b"truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        b"cut.png": (png[: len(png) // 2], "cannot be read"),
        b"head_only.jpg": (jpeg[:20], "cannot be read"),
        b"empty.jpg": (b"", "it is empty"),
        b"page.png": (b"<!doctype html><title>404</title>", "no picture of a known kind"),
        b"huge.png": (huge_png(), "400000000 pixels"),
        b"long.png": (encoded(Image.new("1", (1_000_000, 1)), "PNG"), "a side may be 1000 times the other"),
        b"tall.jpg": (encoded(Image.new("L", (20, 30_000)), "JPEG"), "it has 20 x 30000 pixels"),
        b"figure.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n", "a PostScript drawing"),
        b"flipped.png": (png[:60] + bytes([png[60] ^ 255]) + png[61:], "cannot be read"),
        b"broken \xe9\nname.png": (b"nothing", "no picture of a known kind"),
    }


def write_files(folder: Path, files: Iterable[tuple[bytes, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(content)
