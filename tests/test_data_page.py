"""Every row of docs/data.md: what it says happens does happen, in the very words that it quotes."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from elastic_cnn.data import left_out
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.pixels import RGB, Reading, picture_endings, read_bands, read_picture, read_rgb
from elastic_cnn.data.transforms import Geometry, eval_transform, train_transform
from elastic_cnn.tasks.recipe import load_recipe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
SECTIONS = ("Folders", "Pictures", "What a recipe says about shape")


def rows() -> list[tuple[str, str, str]]:
    """(section, first cell, second cell) of every table row in the sections that this file answers for."""
    found = []
    for part in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = part.splitlines()[0]
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        found += [(title, *row) for row in cells if title in SECTIONS and row[1] not in ("what happens", "meaning")]
    return found


def save(path: Path, picture: Image.Image | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or Image.new("RGB", (6, 4), "red")).save(path, **options)
    return path


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def plain(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("red", "green"):
            save(root / split / name / "0.png")
    return root


def said(root: Path, split: str = "train", **options) -> str:
    """All that is said of a split, with the message of a refusal; photos that cannot be read too."""
    try:
        found = ImageFolder(root, split, lambda picture: picture.width, **options)
        if split == "train" and options.get("labels", "needed") == "needed":
            found.require_several_classes()
    except ValueError as error:
        return str(error)
    lines = [found.found_line, *found.notices]
    for index in range(len(found)):
        try:
            found[index]
        except OSError as error:
            lines.append(str(error))
    return "\n".join(lines)


def folder(*files: str, **options) -> Callable[[Path], str]:
    """The plain data set with more files: pictures by their endings."""

    def make(root: Path) -> str:
        plain(root)
        for name in files:
            is_picture = name.endswith((".png", ".jpg"))
            save(root / name) if is_picture else write(root / name)
        return said(root, **options)

    return make


def system_files(root: Path) -> str:
    names = (".DS_Store", "._a.jpg", ".ipynb_checkpoints/0.png", "__MACOSX/._0.png", "Thumbs.db", "desktop.ini")
    text = folder(*(f"train/red/{name}" for name in names))(root)
    return "passed over in silence" if text == "train: 2 photos in 2 classes (green 1, red 1)" else text


def all_endings(root: Path) -> str:
    row = next(cells for cells in rows() if cells[1].startswith("endings "))
    named = row[1].removeprefix("endings ").removesuffix(", in any case").split()
    assert {f".{name}" for name in named} - {".npy"} == set(picture_endings()) - {".heic", ".heif"}
    plain(root)
    for name in named:
        write(root / "train" / "red" / f"x.{name.upper()}")
    return "read" if said(root).startswith(f"train: {2 + len(named)} photos") else "not read"


def linked(root: Path) -> str:
    plain(root)
    (root / "train" / "red" / "up").symlink_to((root / "train").resolve())
    return said(root)


def dead_link(root: Path) -> str:
    plain(root)
    (root / "train" / "red" / "a.jpg").symlink_to(root / "gone.jpg")
    return said(root)


def pipe(root: Path) -> str:
    plain(root)
    os.mkfifo(root / "train" / "red" / "a.jpg")
    return said(root)


def in_two_forms(root: Path) -> str:
    for name in ("K\u00e4fer", "Ka\u0308fer", "z"):
        save(root / "train" / name / f"{len(name)}.png")
    return "one class" if "in 2 classes (K\u00e4fer 2, z 1)" in said(root) else said(root)


def not_utf8(root: Path, where: bytes) -> str:
    plain(root)
    path = os.path.join(os.fsencode(root), b"train", where)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write((root / "train/red/0.png").read_bytes())
    found = said(root)
    return found if "UTF-8" in found else "shown as `caf\\xe9.jpg`, read, and found again by the explorer"


def empty_class(root: Path) -> str:
    (plain(root) / "train" / "blue").mkdir()
    return said(root)


def one_class(root: Path) -> str:
    save(root / "train" / "images" / "0.png")
    return said(root)


def lone(*names: str, **options) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        for name in names:
            save(root / name)
        return said(root, **options)

    return make


def flat(root: Path) -> str:
    save(root / "a.jpg")
    return "read" if said(root, labels="optional") == said(root, labels="unused") == "train: 1 photos" else "refused"


FOLDERS: dict[str, Callable[[Path], str]] = {
    "`.DS_Store`,": system_files,
    "endings jpg": all_endings,
    "heic, heif": lambda root: (
        "read where the package pillow-heif is installed"
        if ("no image (1 .heic)" in folder("train/b/0.heic")(root)) != (".heic" in picture_endings())
        else ""
    ),
    "files of other endings": folder("train/red/a.txt", "train/b.csv", "train/green/c.txt"),
    "a class folder whose": folder("train/blue/0.heic", "train/blue/1.heic"),
    "a picture beside": folder("train/preview.jpg"),
    "pictures and no class": lone("train/a.jpg"),
    "the same, for predict": flat,
    "two folders of one name": folder("train/birds/owl/0.png", "train/toys/owl/0.png"),
    "names in the two forms": in_two_forms,
    "a name that is not UTF-8, of a photo": lambda root: not_utf8(root, b"red/caf\xe9.jpg"),
    "a name that is not UTF-8, of a class": lambda root: not_utf8(root, b"caf\xe9/0.png"),
    "an empty class": empty_class,
    "one class alone": one_class,
    "a split without some": folder(split="val", classes=("blue", "green", "red")),
    "a split with a class": folder("val/grey/0.png", split="val", classes=("green", "red")),
    "no such split": lone("train/a/0.png", "test/a/0.png", split="val"),
    "a link that leads": dead_link,
    "a pipe,": pipe,
    "a link to a folder": linked,
}


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
        with suppress(AttributeError):
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


def noticed(root: Path) -> str:
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        read("a.png", DARK)(root)
    return text.getvalue()


def four_bands() -> Image.Image:
    return Image.fromarray(np.zeros((8, 8, 4), np.uint8), "RGBX")


def bomb(root: Path) -> str:
    from unittest.mock import patch

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
    "16 bits of grey that": noticed,
    "fractions above 1": read("a.tif", Image.fromarray(FLOATS)),
    "NaN or infinite": read("a.tif", Image.fromarray(np.full_like(FLOATS, np.nan))),
    "a colour TIFF": read("a.tif", four_bands(), tiffinfo=four_tags()),
    "more than 1000": read("a.png", Image.new("1", (1_000_000, 1))),
    "more pixels": bomb,
    "empty, or of": read("a.jpg", b""),
    "an SVG": read("a.jpg", b"<svg/>"),
    "a PDF": read("a.jpg", b"%PDF-1.4"),
    "an EPS": read("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0"),
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


def quoted(cell: str) -> str:
    """A pattern for the sentence in a cell, or the cell's own text."""
    sentence = cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell
    return re.escape(sentence).replace(re.escape("..."), ".*")


@pytest.mark.parametrize(("section", "case", "happens"), [row for row in rows() if row[0] != SECTIONS[2]])
def test_rows_say_what_happens(section, case, happens, tmp_path, monkeypatch):
    known = FOLDERS if section == "Folders" else PICTURES
    [make] = [make for start, make in known.items() if case.startswith(start)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(left_out, "_said", set())
    text = make(Path("photos"))
    if known is PICTURES and not happens.startswith("`"):
        assert happens.startswith(text), text
    else:
        assert re.search(quoted(happens), text, re.DOTALL), text


@pytest.mark.parametrize(("section", "key", "meaning"), [row for row in rows() if row[0] == SECTIONS[2]])
def test_keys_of_recipes_are_taken_and_do_what_they_say(section, key, meaning):
    assert keys(key)
    for mode, check in MEANINGS.items():
        if f"crop_mode={mode}" in key:
            assert check(meaning)


def test_every_case_has_its_row():
    for section, known in (("Folders", FOLDERS), ("Pictures", PICTURES)):
        cases = [row[1] for row in rows() if row[0] == section]
        assert len(cases) == len(known)
        assert all(sum(case.startswith(start) for case in cases) == 1 for start in known)
