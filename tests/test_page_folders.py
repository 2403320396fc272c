"""Every row of docs/data.md on folders and lists: what it says happens does, in the very words that it quotes."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from data_page import check_every_case_has_its_row, check_row, rows, save, write
from PIL import Image

from elastic_cnn.data import left_out
from elastic_cnn.data.common_photos import common_photos
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.picture_kinds import picture_endings


def plain(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("red", "green"):
            save(root / split / name / "0.png")
    return root


def said(root: Path | str, split: str = "train", **options) -> str:
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
    row = next(cells for cells in rows("Folders") if cells[0].startswith("endings "))
    named = row[0].removeprefix("endings ").removesuffix(", in any case").split()
    assert {f".{name}" for name in named} - {".npy"} == set(picture_endings()) - {".heic", ".heif"}
    plain(root)
    for name in named:
        write(root / "train" / "red" / f"x.{name.upper()}")
    return "read" if said(root).startswith(f"train: {2 + len(named)} photos") else "not read"


def linked(root: Path) -> str:
    plain(root)
    (root / "train" / "red" / "up").symlink_to((root / "train").resolve())
    return said(root)


def same_photos(root: Path) -> str:
    plain(root)
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")
    train, val = (ImageFolder(root, split, lambda picture: picture.width) for split in ("train", "val"))
    return "\n".join(common_photos(train, val))


def two_names(root: Path) -> str:
    plain(root)
    (root / "train" / "scarlet").symlink_to("red")
    return said(root)


def links_in_a_ring(root: Path) -> str:
    plain(root)
    (root / "train" / "red" / "x").symlink_to("../green")
    (root / "train" / "green" / "y").symlink_to("../red")
    return said(root, classes_from="path")


def one_level_in(root: Path) -> str:
    return said(plain(root) / "train")


def packed(root: Path) -> str:
    write(root / "train.zip")
    write(root / "val.zip")
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
    return found if "is not named" in found else "shown as `caf\\xe9.jpg`, read, and found again by the explorer"


def empty_class(root: Path) -> str:
    (plain(root) / "train" / "blue").mkdir()
    return said(root)


def empty_known_class(root: Path) -> str:
    (plain(root) / "val" / "green" / "0.png").unlink()
    text = said(root, "val", classes=("green", "red"))
    assert "no class" not in text
    return text


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


def saved(picture: str, label: str, labels: list) -> Callable[[Path], str]:
    """A data set in the Hub's form with these two columns."""

    def make(root: Path) -> str:
        import datasets

        cells = {picture: [Image.new("RGB", (8, 6), name) for name in ("red", "green")], label: labels}
        datasets.DatasetDict({"train": datasets.Dataset.from_dict(cells)}).save_to_disk(str(root))
        return said_of_saved(root)

    return make


def said_of_saved(root: Path) -> str:
    return said(f"hfds/{root}")


FOLDERS: dict[str, Callable[[Path], str]] = {
    "`.DS_Store`,": system_files,
    "endings jpg": all_endings,
    "heic, heif": lambda root: (
        "read where the package pillow-heif is installed"
        if ("no image (1 .heic)" in folder("train/b/0.heic")(root)) != (".heic" in picture_endings())
        else ""
    ),
    "files of other endings": folder("train/red/a.txt", "train/b.csv", "train/green/c.txt"),
    "a class folder whose": folder("train/blue/0.cr2", "train/blue/1.cr2"),
    "a picture beside": folder("train/preview.jpg"),
    "pictures and no class folders, where": lone("train/a.jpg"),
    "pictures and no class folders, for predict": flat,
    "two folders of one name": folder("train/birds/owl/0.png", "train/toys/owl/0.png"),
    "names in the two forms": in_two_forms,
    "a name that is not UTF-8, of a photo": lambda root: not_utf8(root, b"red/caf\xe9.jpg"),
    "a name that is not UTF-8, of a class": lambda root: not_utf8(root, b"caf\xe9/0.png"),
    "an empty class": empty_class,
    "an empty folder of a known": empty_known_class,
    "one class alone": one_class,
    "a split without some": folder(split="val", classes=("blue", "green", "red")),
    "a split with a class": folder("val/grey/0.png", split="val", classes=("green", "red")),
    "the same, written": folder("val/Green /0.png", split="val", classes=("green", "red")),
    "no such split": lone("train/a/0.png", "test/a/0.png", split="val"),
    "the same one level": lone("mine/train/a/0.png", "mine/val/a/0.png"),
    "`val` that is": same_photos,
    "`hfds/NAME` without pictures": saved("img", "label", [0, 1]),
    "`hfds/NAME` without classes": saved("image", "labels", [0, 1]),
    "`hfds/NAME` whose": saved("image", "label", ["cat", "dog"]),
    "`hfds/NAME` with photos": saved("image", "label", [-1, 1]),
    "`hfds/NAME` that is not": said_of_saved,
    "a link that leads": dead_link,
    "a pipe,": pipe,
    "a link to a folder": linked,
    "two links that": links_in_a_ring,
    "a folder of photos inside": folder("train/red/2024/0.png"),
    "a class folder that is a link": two_names,
    "two classes whose names": folder("train/Red/0.png"),
    "one split under two": folder("validation/red/0.png", split="val"),
    "a split's own folder": one_level_in,
    "a split in an archive": packed,
}


def csv_list(*lines: str) -> Callable[[Path], str]:
    """What is said of `photos.csv` with these lines, beside the plain data set's folders."""

    def make(root: Path) -> str:
        plain(root)
        write(Path("photos.csv"), "\n".join(lines).encode())
        return said(Path("photos.csv"))

    return make


LISTS_SECTION = "Lists, and photos that nobody divided"
LISTS: dict[str, Callable[[Path], str]] = {
    "no column of": csv_list("path", "photos/train/red/0.png"),
    "a missing value": csv_list("path,label", "photos/train/red/0.png,red", "photos/train/green/0.png,"),
    "a photo twice": csv_list("path,label", "cat/1.png,cat", "cat/1.png,dog"),
    "the first photo": csv_list("path,label", "cat/1.png,cat"),
    "more cells than": csv_list("path,label", "photos/train/red/0.png,red, dark"),
    "a column twice": csv_list("path,label,label", "photos/train/red/0.png,red,1"),
    "rows of a split": csv_list(
        "path,label,split",
        "photos/train/red/0.png,red,train",
        "photos/train/green/0.png,green,train",
        "photos/val/red/0.png,red,vaal",
    ),
    "a table that is": lambda root: said(write(Path("photos.xlsx"))),
    "no photo of": csv_list("path,label,split", "photos/train/red/0.png,red,test"),
}
SECTIONS = {"Folders": FOLDERS, LISTS_SECTION: LISTS}


@pytest.mark.parametrize(
    ("section", "case", "happens"), [(section, *row) for section in SECTIONS for row in rows(section)]
)
def test_rows_say_what_happens(section, case, happens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(left_out, "_said", set())
    if "hfds/" in case:
        config = pytest.importorskip("datasets").config
        monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_row(SECTIONS[section], case, happens)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_case_has_its_row(section):
    check_every_case_has_its_row(section, SECTIONS[section])


def test_a_locale_that_reads_no_name_as_utf8_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert "is not named in ascii, as your locale has names: set PYTHONUTF8=1" in not_utf8(tmp_path, b"caf\xe9/0.png")
