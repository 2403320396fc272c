"""The one reader of pictures: depths, transparency, channels, sizes and kinds; right, or a sentence."""

import io
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, TiffImagePlugin, features

from elastic_cnn.data import left_out, pixels
from elastic_cnn.data.picture_kinds import BadSize, NoPicture, Reading
from elastic_cnn.data.pixels import opened, read_bands, read_rgb
from elastic_cnn.data.sampler import UnreadableSample

RAMP = np.tile(np.linspace(0, 1, 64), (8, 1))


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def array_file(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def deep(top: float, kind: str = "PNG", dtype: str = "uint16") -> bytes:
    return encoded(Image.fromarray((RAMP * top).astype(dtype)), kind)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(left_out, "_said", set())


@pytest.mark.parametrize(
    ("content", "white"),
    [
        *((deep(top, kind), 65535) for top in (255, 256, 4095, 65535) for kind in ("PNG", "TIFF")),
        (deep(2**31 - 1, "TIFF", "int32"), 2**31 - 1),
        (deep(1.0, "TIFF", "float32"), 1.0),
        (array_file((RAMP * 4095).astype(np.uint16)), 65535),
        (array_file((RAMP * 30000).astype(np.int16)), 32767),
        (array_file(RAMP.astype(np.float32)), 1.0),
        (array_file((RAMP * 255).astype(np.uint8)), 255),
    ],
)
def test_levels_are_scaled_by_their_type_never_by_a_photos_own(content, white):
    """The oracle is the stored number over the largest of its type; a dark photo stays dark beside a bright one."""
    file = io.BytesIO(content)
    stored = np.load(file) if content[:2] == b"\x93N" else np.asarray(Image.open(file))
    expected = np.trunc(255 * stored.astype(np.float64) / white)
    read = np.asarray(read_rgb(content)).astype(float)
    assert np.abs(read - expected[..., None]).max() <= 1
    levels = read_bands(content, reading=Reading(1))
    np.testing.assert_allclose(levels[0], stored / white, atol=1e-6)  # nothing is lost where floats are read
    top = float(stored.max())
    if white != 255:  # 8 bits are what they are
        assert abs(read_bands(content, reading=Reading(1, max_value=top)).max() - 1) < 1e-6


def test_a_picture_in_which_nearly_all_levels_vanish_draws_one_notice(capsys):
    for _ in range(3):
        assert np.asarray(read_rgb(deep(4095), "dark.png")).max() == 15
    [line] = capsys.readouterr().err.splitlines()
    assert "dark.png: its values reach 4095 of 65535, so nearly all its levels vanish" in line
    assert "options.max_value=4095" in line
    for content in (deep(65535), deep(20000), encoded(Image.new("I;16", (8, 8)))):
        read_rgb(content)
    read_rgb(deep(4095), reading=Reading(max_value=4095))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (RAMP * 255, r"its values lie in 0\.\.255, 0\.\.1 are expected: set max_value"),
        (RAMP - 0.5, r"its values lie in -0\.5\.\.0\.5"),
        (np.where(RAMP > 0.5, np.nan, RAMP), "not finite"),
        (np.where(RAMP > 0.5, np.inf, RAMP), "not finite"),
    ],
)
def test_numbers_that_are_no_brightness_are_refused(values, says):
    for content in (encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), array_file(values)):
        for read, reading in ((read_rgb, Reading()), (read_bands, Reading(1))):
            with pytest.raises(UnreadableSample, match=says):
                read(content, "x", reading)


def test_white_may_be_zero_in_a_tiff():
    """As its head says; Pillow does not write it, so a head is patched."""
    inverted = encoded(Image.fromarray((RAMP * 65535).astype("uint16")), "TIFF")
    place = inverted.index(struct.pack("<HHI", 262, 3, 1))
    patched = inverted[: place + 8] + struct.pack("<H", 0) + inverted[place + 10 :]
    a, b = (read_bands(content, reading=Reading(1)) for content in (inverted, patched))
    torch.testing.assert_close(a, 1 - b)


def logo(mode: str) -> Image.Image:
    """A black disc; all around it colours that are not to be seen."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(0, 256, (32, 32, 4), dtype=np.uint8)
    hidden[..., 3] = 0
    picture = Image.fromarray(hidden, "RGBA") if hidden.shape else None
    ImageDraw.Draw(picture).ellipse((8, 8, 24, 24), fill=(0, 0, 0, 255))
    return picture if mode == "RGBA" else picture.convert(mode)


def keyed(mode: str, key: object) -> bytes:
    """One colour is told to be transparent."""
    picture = Image.new("L" if mode == "P" else mode, (32, 32), key)
    picture.paste(0, (8, 8, 24, 24))
    if mode == "P":  # greys by their numbers
        picture.putpalette([level for level in range(256) for _ in range(3)])
    return encoded(picture, transparency=key)


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize(
    "content",
    [
        encoded(logo("RGBA")),
        encoded(logo("RGBA"), "WEBP", lossless=True, exact=True),
        encoded(logo("RGBA"), "TIFF"),
        encoded(logo("LA")),
        encoded(logo("LA"), "TIFF"),
        keyed("RGB", (255, 0, 255)),
        keyed("L", 77),
        keyed("I;16", 30000),
        keyed("P", 200),
        encoded(Image.new("P", (32, 32), 3), "GIF", transparency=3),
    ],
)
def test_what_is_transparent_shows_the_background_never_hidden_colours(content, background):
    corner = np.asarray(read_rgb(content, reading=Reading(background=background)))[:4, :4].reshape(-1, 3)
    grey = Image.open(io.BytesIO(content)).mode == "I;16"
    expected = [Image.new("RGB", (1, 1), background).convert("L").getpixel((0, 0))] * 3 if grey else background
    assert np.abs(corner.astype(int) - expected).max() <= grey
    levels = read_bands(content, reading=Reading(1, background=background))[0, :4, :4]
    assert float(levels.std()) < 1e-6
    if len(np.unique(np.asarray(Image.open(io.BytesIO(content)).convert("L")))) > 1:
        assert np.asarray(read_rgb(content))[16, 16].max() <= 1  # the disc


def test_half_transparent_pixels_mix_with_the_background():
    content = encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))
    assert read_rgb(content).getpixel((0, 0)) == (127, 127, 127)
    opaque = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    assert np.array_equal(np.asarray(read_rgb(encoded(Image.fromarray(opaque)))), opaque[..., :3])


BANDS = np.random.default_rng(1).integers(0, 256, (12, 10, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "channels", "expected"),
    [
        (encoded(Image.fromarray(BANDS, "RGBA")), 4, BANDS),
        (encoded(Image.fromarray(BANDS[..., 0])), 1, BANDS[..., :1]),
        (encoded(Image.fromarray(BANDS[..., :2], "LA")), 2, BANDS[..., :2]),
        *((array_file(BANDS[..., :c]), c, BANDS[..., :c]) for c in (1, 2, 4)),
        *((array_file(BANDS[..., :c].transpose(2, 0, 1)), c, BANDS[..., :c]) for c in (2, 4)),
        (array_file(np.tile(BANDS, (1, 1, 4))[..., :13]), 13, np.tile(BANDS, (1, 1, 4))[..., :13]),
        (array_file(BANDS[..., 0]), 3, BANDS[..., [0, 0, 0]]),
    ],
)
def test_pictures_of_as_many_channels_as_the_network_takes(content, channels, expected):
    levels = read_bands(content, reading=Reading(channels))
    assert levels.dtype == torch.float32
    np.testing.assert_allclose(levels, expected.transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("content", "channels", "says"),
    [
        (encoded(Image.fromarray(BANDS[..., :3])), 4, "it has 3 channel(s), the network takes 4"),
        (encoded(Image.fromarray(BANDS, "RGBA")), 2, "it has 4 channel(s), the network takes 2"),
        (encoded(Image.fromarray(BANDS[..., 0])), 5, "it has 1 channel(s), the network takes 5"),
        (array_file(BANDS), 3, "an array of shape (12, 10, 4) has no side of 3"),
        (array_file(BANDS[0, 0]), 3, "an array of shape (4,)"),
        (array_file(np.array(["text"])), 3, "is no picture"),
        (array_file(np.zeros((0, 4, 3))), 3, "is no picture"),
    ],
)
def test_other_numbers_of_channels_are_told(content, channels, says):
    with pytest.raises(UnreadableSample) as caught:
        (read_rgb if channels == 3 else read_bands)(content, "x", Reading(channels))
    assert says in str(caught.value)


def test_grey_and_colour_become_each_other():
    colour = Image.fromarray(BANDS[..., :3])
    grey = np.asarray(colour.convert("L")) / 255
    np.testing.assert_allclose(read_bands(encoded(colour), reading=Reading(1))[0], grey, atol=1e-6)
    three = read_bands(encoded(colour.convert("L")), reading=Reading(3))
    np.testing.assert_allclose(three, np.repeat(grey[None], 3, 0), atol=1e-6)


def test_tiffs_of_many_channels_need_tifffile(monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    many = (np.random.default_rng(0).integers(0, 60000, (13, 12, 10))).astype(np.uint16)
    for options in ({"photometric": "minisblack", "planarconfig": "separate"}, {"photometric": "minisblack"}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, many, **options)
        levels = read_bands(buffer.getvalue(), reading=Reading(13))
        np.testing.assert_allclose(levels, many / 65535, atol=1e-6)
        with pytest.raises(UnreadableSample, match="has no side of 5, the network's channels"):
            read_bands(buffer.getvalue(), "x", Reading(5))


def test_without_tifffile_its_name_is_told(monkeypatch):
    real = pixels.importlib.import_module
    missing = lambda name: real("no_such_module") if name == "tifffile" else real(name)  # noqa: E731
    monkeypatch.setattr(pixels.importlib, "import_module", missing)
    with pytest.raises(UnreadableSample, match="need the package tifffile: install it"):
        read_bands(encoded(Image.fromarray(BANDS[..., 0]), "TIFF"), "x.tif", Reading(5))


def test_further_bands_of_a_tiff_are_not_dropped_in_silence():
    """Four bands, the fourth unspecified (near infrared): Pillow shows the first three."""
    buffer = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[338] = 0
    Image.fromarray(BANDS, "RGBX").save(buffer, "TIFF", tiffinfo=tags)
    with pytest.raises(UnreadableSample, match="it has 4 channels, the network takes 3"):
        read_rgb(buffer.getvalue(), "x.tif")


@pytest.mark.parametrize("size", [(1_000_000, 1), (1, 100_000), (5, 5001), (3000, 2)])
def test_pictures_far_too_long_are_refused_before_their_pixels_are_read(size):
    content = encoded(Image.new("1", size))
    for read in (read_rgb, read_bands):
        with pytest.raises(BadSize, match=rf"it has {size[0]} x {size[1]} pixels; a side may be 1000 times the other"):
            read(content, "long.png")
    with pytest.raises(BadSize), opened(content):
        pass
    with pytest.raises(BadSize):
        read_rgb(array_file(np.zeros(size[::-1], np.uint8)))
    assert read_rgb(encoded(Image.new("1", (1000, 1)))).size == (1000, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "a PostScript drawing"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "a PostScript drawing"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b'\n <svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b'<?xml version="1.0"?><svg/>', "perhaps an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF" if not features.check("avif") else "cannot be read"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a film"),
        (b"\0\5\26\7\0\2\0\0Mac OS X", "a macOS side file"),
        (b"II*\0" + bytes(40), "cannot be read"),
        (b"<!doctype html><title>404</title>", "no picture of a known kind"),
        (b"", "it is empty"),
        (b"\x93NUMPY\1\0\x10\0", "cannot be read"),
    ],
)
def test_what_is_no_photo_is_called_by_its_name(content, says, tmp_path, monkeypatch):
    """Whatever it is named; and no other program is started (Pillow draws EPS files by one)."""
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableSample, match=r"photo\.jpg cannot be read") as caught:
        read_rgb(path)
    assert says in str(caught.value)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.jpg"))
        for name in ("pipe.jpg", "folder.jpg", "socket.jpg", "/dev/zero"):
            with pytest.raises(NoPicture, match="it is no regular file"):
                read_rgb(tmp_path / name)
    with pytest.raises(UnreadableSample, match="no such file, or a link that leads nowhere"):
        read_rgb(Path("gone.jpg"))


def test_arrays_never_run_code():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    with pytest.raises(UnreadableSample, match="Object arrays cannot be loaded"):
        read_rgb(buffer.getvalue(), "x.npy")


def exif_behind(png: bytes) -> bytes:
    """The same PNG, its EXIF behind its pixels."""
    start = png.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", png[start : start + 4])[0]
    return png[:start] + png[end:-12] + png[start:end] + png[-12:]


def turned(kind: str, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (9, 5), "white")
    picture.paste("black", (0, 0, 3, 2))
    return encoded(picture, kind, **({"exif": exif} | options))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'


@pytest.mark.parametrize("at_once", [pixels.AT_ONCE, 0], ids=["at once", "as asked"])
@pytest.mark.parametrize(
    "content",
    [
        *(turned(kind, quality=95) for kind in ("JPEG", "WEBP")),
        *(turned("AVIF", quality=95) for _ in "a" if features.check("avif")),
        *(turned(kind) for kind in ("PNG", "TIFF", "MPO")),
        exif_behind(turned("PNG")),
        turned("JPEG", exif=b"", xmp=XMP),
        turned("WEBP", exif=b"", xmp=XMP),
    ],
)
def test_photos_are_turned_wherever_their_file_tells_it(content, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "AT_ONCE", at_once)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        read = read_rgb(source)
        assert read.size == (5, 9)
        assert max(read.getpixel((4, 0))) < 60  # type: ignore[type-var]
        assert min(read.getpixel((0, 0))) > 200  # type: ignore[type-var]
