"""Folders of photos as people have them: what is a photo, what is passed over, and which class a photo is of."""

import os
import tarfile
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from elastic_cnn.data import folders, picture_kinds
from elastic_cnn.data.folders import arrange, find_pictures, is_of_the_system
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.splits import split_place, undivided

CLUTTER = (
    *(".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "Desktop.INI", ".ipynb_checkpoints/0-checkpoint.png"),
    *("__MACOSX/red/._0.png", ".Trashes/old.png", ".git/objects/ab.png", "@eaDir/0.png", "THUMBS.DB"),
    *("Icon\r", "Picasa.ini", "lost+found/0.png"),
)


@pytest.fixture
def without_heif(monkeypatch):
    """Endings as they are where no reader of HEIC is installed."""
    for room in (picture_kinds, folders):
        monkeypatch.setattr(room, "picture_endings", lambda: picture_kinds.ENDINGS)


def width(picture: Image.Image) -> int:
    return picture.width


def write(root: Path, *names: str) -> Path:
    """Pictures, one pixel wider each, and other files by their endings."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".txt", ".csv", ".xml", ".heic", ".cr2", ".json", ""):
            path.write_bytes(b"text")
        else:
            kind = {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF"}.get(path.suffix.lower())
            Image.new("RGB", (number + 2, 4), "red").save(path, kind)
    return root


def samples(root: Path, split: str = "train", **options) -> ImageFolder:
    return ImageFolder(root, split, width, **options)


def packed(root: Path, tmp_path: Path) -> Path:
    """The same data set with each split in a tar file."""
    out = tmp_path / "packed"
    out.mkdir()
    for split in root.iterdir():
        with tarfile.open(out / f"{split.name}.tar", "w") as archive:
            archive.add(split, arcname=".")
    return out


@pytest.mark.parametrize("form", ["folder", "tar"])
@pytest.mark.parametrize("name", CLUTTER)
def test_files_of_the_system_are_passed_over_wherever_they_lie(name, form, tmp_path):
    root = write(tmp_path / "d", "train/red/0.png", "train/green/0.png")
    for place in ("", "train", "train/red"):
        path = root / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\26\7Mac OS X")
    found = samples(root if form == "folder" else packed(root / ".", tmp_path))
    assert (found.classes, len(found), found.notices) == (("green", "red"), 2, ())
    assert [path.name for path in find_pictures(root)] == ["0.png", "0.png"]
    assert is_of_the_system(name.split("/")[0])


def test_the_line_and_the_counts_say_what_was_found(tmp_path):
    root = write(tmp_path, *(f"train/{name}/{i}.png" for name, many in (("red", 3), ("green", 2)) for i in range(many)))
    found = samples(root)
    assert found.found_line == "train: 5 photos in 2 classes (green 2, red 3)"
    assert found.counts == {"green": 2, "red": 3}
    many = write(tmp_path / "many", *(f"val/c{i}/{j}.png" for i in range(13) for j in range(1 + (i == 4))))
    assert samples(many, "val").found_line == "val: 14 photos in 13 classes (1 of c0 to 2 of c4)"


@pytest.mark.parametrize(
    "ending", ["jpg", "JPG", "jpeg", "jpe", "jfif", "JFIF", "png", "webp", "bmp", "gif", "tif", "TIFF", "ppm", "avif"]
)
def test_all_endings_of_pictures_are_read(ending, tmp_path):
    if ending == "avif":
        from PIL import features

        if not features.check("avif"):
            pytest.skip("this Pillow reads no AVIF")
    found = samples(write(tmp_path, f"train/a/0.{ending}", "train/b/0.png"))
    assert found[0] == {"image": 2, "target": 0}


def test_other_files_are_counted_by_ending_in_one_notice(tmp_path):
    root = write(
        tmp_path,
        "train/a/0.png",
        "train/b/0.png",
        "train/a/0.txt",
        "train/b/1.TXT",
        "train/labels.csv",
        "train/LICENSE",
    )
    assert samples(root).notices == ("train: 4 files that are no images passed over (2 .txt, 1 .csv, 1 no ending)",)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["preview.png"], r"train/preview\.png lies beside the class folders and is of no class: move or remove it"),
        (["a.jpg", "b.jpg"], r"train/a\.jpg and 1 more lies beside the class folders"),
        (["blue/0.heic", "blue/1.heic"], r"train/blue holds 2 file\(s\) and no image \(2 \.heic\); .* pillow-heif"),
        (["blue/0.cr2"], r"train/blue holds 1 file\(s\) and no image \(1 \.cr2\); images are"),
        (["blue/0.txt"], r"train/blue holds 1 file\(s\) and no image \(1 \.txt\)"),
        (["deep/blue/x.xml", "deep/grey/0.png"], r"train/deep/blue holds 1 file\(s\) and no image"),
        (["birds/owl/0.png", "toys/owl/0.png"], r"folders birds/owl and toys/owl have the same .*--classes-from path"),
        (["sub/red/0.png"], r"the folders red and sub/red have the same name"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_what_cannot_be_meant_is_refused_by_name(names, says, form, without_heif, tmp_path):
    root = write(tmp_path / "d", "train/red/0.png", "train/green/0.png", *(f"train/{name}" for name in names))
    place = root if form == "folder" else packed(root, tmp_path)
    with pytest.raises(ValueError, match=says if form == "folder" else says.replace("train/", r"train\.tar/")):
        samples(place)


def test_classes_may_be_named_by_the_outermost_folders(tmp_path):
    """As torchvision's `ImageFolder` has it, for albums inside of classes; a checkpoint's classes find them again."""
    names = ("red/0.png", "red/2024/1.png", "green/2024/deep/2.png", "green/3.png")
    root = write(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in names))
    with pytest.raises(ValueError, match="--classes-from top"):
        samples(write(tmp_path / "clash", *(f"train/{name}" for name in (*names, "green/2024/4.png"))))
    train = samples(root, classes_from="top")
    assert (train.classes, train.counts) == (("green", "red"), {"green": 2, "red": 2})
    assert train.notices == ()
    val = samples(root, "val", classes=train.classes)
    assert val.counts == train.counts
    assert samples(root, "val", labels="optional", known=train.classes).counts == train.counts
    inner = samples(root)  # by the folders that hold them: albums are classes, which is said
    assert inner.counts == {"2024": 1, "deep": 1, "green": 1, "red": 1}
    assert len(inner.notices) == 1
    assert "'green/2024/deep', 'red/2024', inside a class folder that holds photos too" in inner.notices[0]


def test_classes_may_be_named_by_their_path(tmp_path):
    root = write(tmp_path, "train/birds/owl/0.png", "train/toys/owl/0.png", "train/red/0.png", "val/toys/owl/0.png")
    train = samples(root, classes_from="path")
    assert train.classes == ("birds/owl", "red", "toys/owl")
    val = samples(root, "val", classes=train.classes)  # as their names say, without being told
    assert [val[i]["target"] for i in range(len(val))] == [2]
    assert val.notices == ("val lacks 2 of the 3 classes: 'birds/owl', 'red'",)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Käfer", "café", "Ångström", "한국"])
def test_names_are_one_however_a_disk_stores_them(name, form, tmp_path):
    """macOS writes NFD where others write NFC: a checkpoint, and folders of both in one split, are of one class."""
    other = "NFD" if form == "NFC" else "NFC"
    here, there = unicodedata.normalize(form, name), unicodedata.normalize(other, name)
    root = write(tmp_path, f"train/{here}/0.png", f"train/{there}/1.png", "train/z/0.png", f"val/{there}/0.png")
    train = samples(root)
    assert train.counts == {unicodedata.normalize("NFC", name): 2, "z": 1}
    assert [samples(root, "val", classes=(here, "z"))[0]["target"]] == [0]


def test_one_class_alone_and_empty_folders(tmp_path):
    with pytest.raises(ValueError, match=r"train holds one class, 'images'.*one level off\?"):
        samples(write(tmp_path / "one", "train/images/0.png")).require_several_classes()
    root = write(tmp_path / "two", "train/a/0.png", "train/b/0.png")
    (root / "train" / "c").mkdir()
    assert samples(root).notices == ("train: 'c' holds no file and is no class",)


def test_a_split_may_lack_classes_and_may_not_have_others(tmp_path):
    root = write(tmp_path, "val/a/0.png", "val/c/0.png")
    lacking = samples(root, "val", classes=("a", "b", "c", "d"))
    assert lacking.notices == ("val lacks 2 of the 4 classes: 'b', 'd'",)
    assert [lacking[i]["target"] for i in range(2)] == [0, 2]
    with pytest.raises(ValueError, match=r"val holds 'c', which the 2 classes to choose from lack \('a', 'b'\)"):
        samples(root, "val", classes=("a", "b"))


@pytest.mark.parametrize("name", ["Train", "TRAINING", "training"])
def test_splits_are_found_whatever_the_case(name, tmp_path):
    assert len(samples(write(tmp_path, f"{name}/a/0.png", f"{name}/b/0.png"))) == 2


def test_flat_folders_where_classes_are_not_needed(tmp_path):
    root = write(tmp_path / "flat", "2.png", "10.png", "notes.txt")
    for labels in ("optional", "unused"):
        found = samples(root, "val", labels=labels)
        assert [found.path(i) for i in range(2)] == [str(root / "2.png"), str(root / "10.png")]
        assert (found.classes, found.found_line) == (("",), "val: 2 photos")
    with pytest.raises(ValueError, match=r"holds pictures and no class folders \(2\.png, \.\.\.\).*elastic predict"):
        samples(tmp_path, "flat")
    with pytest.raises(ValueError, match=r"has no folder 'val'"):  # a data set is not taken for a split
        samples(write(tmp_path / "set", "train/a/0.png"), "val", labels="optional")
    mixed = write(tmp_path / "mixed", "a/0.png", "stray.png")
    assert len(samples(mixed, labels="unused")) == 2
    with pytest.raises(ValueError, match=r"stray\.png lies beside"):
        samples(mixed, labels="optional")


def test_dead_links_pipes_and_vanished_files_are_unreadable_samples(tmp_path):
    root = write(tmp_path, "train/a/0.png", "train/a/3.png", "train/b/0.png")
    (root / "train/a/1.png").symlink_to(root / "gone.png")
    os.mkfifo(root / "train/a/2.png")
    found = samples(root)
    (root / "train/a/3.png").unlink()
    assert len(found) == 5
    for index, says in ((1, "a link that leads nowhere"), (2, "no regular file"), (3, "no such file")):
        with pytest.raises(UnreadableSample, match=says):
            found[index]


def test_folders_that_are_not_there(without_heif, tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        split_place(tmp_path / "none", "train")
    with pytest.raises(ValueError, match=r"there is no list .*none\.csv"):
        split_place(tmp_path / "none.csv", "train")
    for read in (lambda root: split_place(root, "train"), lambda root: undivided(str(root))):
        with pytest.raises(ValueError, match=r"one has no folder 'train'.* is .*one.mine meant\?"):
            read(write(tmp_path / "one", "mine/train/a/0.png", "mine/val/a/0.png"))
    assert undivided(str(write(tmp_path / "rail", "big/train/0.png", "big/car/0.png"))) == tmp_path / "rail"
    for name, says in (
        ("d.txt", "is not a folder$"),
        ("d.json", "is not a folder$"),
        ("d.ZIP", "not a folder: unpack"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError, match=says):
            split_place(tmp_path / name, "train")
    with pytest.raises(ValueError, match=r"has no folder 'val' or 'validation' or 'valid'.*it holds 'test', 'train'"):
        split_place(write(tmp_path / "e", "train/a/0.png", "test/a/0.png"), "val")
    with pytest.raises(ValueError, match=r"holds no images \(2 \.heic\); images are .*\.heic needs the package"):
        find_pictures(write(tmp_path / "h", "0.heic", "1.heic"))
    with pytest.raises(ValueError, match="is an address"):
        samples("https://example.org/photos")


def test_order_is_natural_and_independent_of_the_disk():
    names = ["b/10.png", "b/9.png", "A/1.png", "a/2.png", "b/Z.png", "b/a.png"]
    first = arrange(names, "x", classes_from="path")
    assert first.names == arrange(sorted(names, reverse=True), "x", classes_from="path").names
    assert first.names == ("A/1.png", "a/2.png", "b/9.png", "b/10.png", "b/a.png", "b/Z.png")
