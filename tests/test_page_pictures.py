"""Every row of docs/data.md on pictures and on their shape, in the very words that it quotes."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from data_page import check_every_case_has_its_row, check_row, rows, save
from deep_png import rgb16
from PIL import Image, TiffImagePlugin

from elastic_cnn.data import left_out
from elastic_cnn.data.picture_kinds import RGB, Reading
from elastic_cnn.data.pixels import read_bands, read_picture, read_rgb
from elastic_cnn.data.transforms import Geometry, eval_transform, train_transform
from elastic_cnn.tasks.recipe import load_recipe


def read(name: str, content: bytes | Image.Image | np.ndarray, reading: Reading = RGB, **options):
    """What is said of one picture."""

    def make(root: Path) -> str:
        path = root / name
        root.mkdir()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            content.save(path, **options)
        left_out._said.clear()
        try:
            read_picture(path, name, reading)
        except OSError as error:
            return str(error)
        return ""

    return make


def is_so(text: str, check: Callable[[Path], bool]) -> Callable[[Path], str]:
    """For a row that quotes no sentence: its text, where the check holds."""
    return lambda root: text if check(root) else "it is not so"


def upright(root: Path) -> bool:
    exif = Image.Exif()
    exif[0x0112] = 6
    return read_rgb(save(root / "a.jpg", Image.new("RGB", (9, 5)), exif=exif)).size == (5, 9)


def modes(root: Path) -> bool:
    pictures = [Image.new(mode, (4, 4)) for mode in ("P", "L", "1", "LA")]
    paths = [save(root / f"{i}.png", picture) for i, picture in enumerate(pictures)]
    paths.append(save(root / "c.jpg", Image.new("CMYK", (4, 4))))
    return all(read_rgb(path).mode == "RGB" for path in paths)


def frames(root: Path) -> bool:
    more = {"save_all": True, "append_images": [Image.new("RGB", (4, 4), "blue")]}
    paths = [
        save(root / f"a.{kind}", Image.new("RGB", (4, 4), "red"), **more) for kind in ("gif", "tif", "webp", "png")
    ]
    return all(read_rgb(path).getpixel((0, 0))[0] > 200 for path in paths)


def transparent(root: Path) -> bool:
    path = save(root / "a.png", Image.new("RGBA", (4, 4), (9, 99, 9, 0)))
    over = read_rgb(path, reading=Reading(background=(1, 2, 3))).getpixel((0, 0))
    return (read_rgb(path).getpixel((0, 0)), over) == ((255, 255, 255), (1, 2, 3))


def by_type(root: Path) -> bool:
    values = [(np.full((4, 4), 30000, np.uint16), 65535), (np.full((4, 4), 2**30, np.int32), 2**31 - 1)]
    values.append((np.full((4, 4), 0.5, np.float32), 1.0))
    for number, (array, white) in enumerate(values):
        path = save(root / f"{number}.tif", Image.fromarray(array))
        expected = torch.full((1, 4, 4), float(array[0, 0]) / white)
        torch.testing.assert_close(read_bands(path, reading=Reading(1)), expected)
    return bool((read_bands(root / "0.tif", reading=Reading(1, max_value=60000.0)) == 0.5).all())


DARK = Image.fromarray((np.arange(4096) % 4096).reshape(64, 64).astype(np.uint16))
FLOATS = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)


def noticed(content: bytes | Image.Image) -> Callable[[Path], str]:
    """What is said of a picture that is read."""

    def make(root: Path) -> str:
        text = io.StringIO()
        with contextlib.redirect_stderr(text):
            assert read("a.png", content)(root) == ""
        return text.getvalue()

    return make


COLOURS = np.arange(64 * 3).reshape(8, 8, 3) * 64  # at most 12224 of 65535


def eight_of_sixteen(root: Path) -> bool:
    root.mkdir()
    (root / "a.png").write_bytes(rgb16(COLOURS))
    return bool((np.asarray(read_rgb(root / "a.png")) == COLOURS // 256).all())


def four_bands() -> Image.Image:
    return Image.fromarray(np.zeros((8, 8, 4), np.uint8), "RGBX")


def bomb(root: Path) -> str:
    with patch.object(Image, "MAX_IMAGE_PIXELS", 100):
        return read("a.png", Image.new("RGB", (40, 40)))(root)


def four_tags() -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[338] = 0
    return tags


def four_jitter(root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        train_transform(32, (0.5,) * 4, (0.5,) * 4, color_jitter=0.4)
    return str(caught.value)


PICTURES: dict[str, Callable[[Path], str]] = {
    "turned by EXIF": is_so("turned upright", upright),
    "palette, CMYK": is_so("RGB", modes),
    "several frames": is_so("the first", frames),
    "transparent": is_so("laid over white", transparent),
    "16 bits of grey, 32": is_so("scaled by the type", by_type),
    "16 bits of grey that": noticed(DARK),
    "16 bits of each colour": is_so("read as 8", eight_of_sixteen),
    "16 bits a colour that": noticed(rgb16(COLOURS % 4096)),
    "16 bits a colour, with": read("a.png", rgb16(COLOURS), Reading(max_value=4095)),
    "fractions above 1": read("a.tif", Image.fromarray(FLOATS)),
    "NaN or infinite": read("a.tif", Image.fromarray(np.full_like(FLOATS, np.nan))),
    "a colour TIFF": read("a.tif", four_bands(), tiffinfo=four_tags()),
    "more than 1000": read("a.png", Image.new("1", (1_000_000, 1))),
    "more pixels": bomb,
    "empty, or of": read("a.jpg", b""),
    "an SVG": read("a.jpg", b"<svg/>"),
    "a PDF": read("a.jpg", b"%PDF-1.4"),
    "an EPS": read("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0"),
    "a web page": read("a.jpg", b"\n<!DOCTYPE HTML><html><body>403 Forbidden</body></html>"),
    "what Git LFS": read("a.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"),
    "a ZIP": read("a.jpg", b"PK\3\4\24\0"),
    "a gzip": read("a.jpg", b"\x1f\x8b\x08\0"),
    "a Photoshop": read("a.jpg", b"8BPS\0\1"),
    "JPEG 2000": read("a.jpg", b"\0\0\0\x0cjP  \r\n\x87\n"),
    "JPEG XL": read("a.jpg", b"\xff\x0a\0\0"),
    "a macOS side": read("a.jpg", b"\0\5\26\7\0\2\0\0"),
    "HEIC without": read("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    "another number of": read("a.png", Image.new("RGB", (8, 8)), Reading(4)),
    "an array without": read("a.npy", np.zeros((8, 8, 4), np.uint8)),
    "options.color_jitter": four_jitter,
}


def keys(text: str) -> bool:
    """Whether recipes take what a cell shows, one key or several."""
    for override in re.findall(r"`([^`]+)`", text):
        recipe = load_recipe("small_images", [override])
        key, _, value = override.partition("=")
        if key == "image_size":
            assert recipe.size in ((64, 64), (32, 128))
        else:
            assert str(recipe.options[key.removeprefix("options.")]).lower() == value
    return True


def keeps_ends(mode: str) -> bool:
    picture = Image.new("RGB", (80, 20), "white")
    picture.paste("black", (0, 0, 16, 20))
    tested = eval_transform((20, 20), (0.0,) * 3, (1.0,) * 3, crop_mode=mode)(picture)
    trained = train_transform(20, (0.5,) * 3, (1.0,) * 3, min_scale=0.95, geometry=Geometry(0, crop_mode=mode))
    seen = [bool((trained(picture) < -0.45).any()) for _ in range(8)]
    ends = bool((tested[:, 10] < 0.05).any()) and (mode == "squash" or bool((tested[:, 0] == 0).any()))
    assert all(seen) == ends
    return ends


MEANINGS: dict[str, Callable[[str], bool]] = {
    "center": lambda text: not keeps_ends("center"),
    "border": lambda text: keeps_ends("border"),
    "squash": lambda text: keeps_ends("squash"),
}


@pytest.mark.parametrize(("case", "happens"), rows("Pictures"))
def test_rows_say_what_happens(case, happens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(left_out, "_said", set())
    check_row(PICTURES, case, happens)


def test_every_case_has_its_row():
    check_every_case_has_its_row("Pictures", PICTURES)


@pytest.mark.parametrize(("key", "meaning"), rows("What a recipe says about shape"))
def test_keys_of_recipes_are_taken_and_do_what_they_say(key, meaning):
    assert keys(key)
    for mode, check in MEANINGS.items():
        if f"crop_mode={mode}" in key:
            assert check(meaning)
