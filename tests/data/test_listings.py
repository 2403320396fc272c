"""Lists of photos in CSV files, and photos that nobody divided: what is read, what is held out, what is refused."""

import csv
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.data.held_out import HeldOut
from elastic_cnn.data.image_folder import ImageFolder, eval_transform
from elastic_cnn.data.listings import Row, read_listing, read_rows, write_listing

CLASSES = {"cat": 10, "dog": 5, "owl": 1}


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """Class folders without train and val, of unequal numbers; `photos/cat/3.png` is grey 3."""
    root = tmp_path_factory.mktemp("flat") / "photos"
    for name, count in CLASSES.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(root / name / f"{number}.png")
    return root


def open_part(data: Path, split: str, part: float = 0.2, seed: int = 0) -> ImageFolder:
    return ImageFolder(data, split, eval_transform((8, 8)), held_out=HeldOut(part, seed))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_folder_is_divided_class_by_class_without_overlap(flat):
    train, val = open_part(flat, "train"), open_part(flat, "val")
    assert (train.counts, val.counts) == ({"cat": 8, "dog": 4, "owl": 1}, {"cat": 2, "dog": 1})
    assert train.classes == val.classes == ("cat", "dog", "owl")
    paths = [{part.path(index) for index in range(len(part))} for part in (train, val)]
    assert not paths[0] & paths[1]
    assert len(paths[0] | paths[1]) == 16
    assert val.notices == ("val lacks 1 of the 3 classes: 'owl'",)
    for part in (train, val):
        for index in range(len(part)):
            assert part.classes[part[index]["target"]] == Path(part.path(index)).parent.name
    assert [train.path(i) for i in range(13)] != [open_part(flat, "train", seed=1).path(i) for i in range(13)]


def test_which_photos_are_held_out_follows_from_names_and_seed_alone():
    names = [f"{number}.jpg" for number in range(50)]
    labels = ["even" if number % 2 == 0 else "odd" for number in range(50)]
    held = {names[place] for place in HeldOut(0.3).divide(names, labels)[1]}
    order = list(range(50))
    random.Random(1).shuffle(order)
    again = HeldOut(0.3).divide([names[i] for i in order], [labels[i] for i in order])[1]
    assert held == {names[order[place]] for place in again}
    assert Counter(labels[names.index(name)] for name in held) == {"even": 8, "odd": 8}
    assert held != {names[place] for place in HeldOut(0.3, seed=1).divide(names, labels)[1]}


@pytest.mark.parametrize(
    ("count", "part", "held"), [(1, 0.9, 0), (2, 0.01, 1), (2, 0.99, 1), (10, 0.5, 5), (3, 0.9, 2)]
)
def test_every_class_keeps_a_photo_on_both_sides_where_it_can(count, part, held):
    train, test = HeldOut(part).divide([str(n) for n in range(count)], ["a"] * count)
    assert (len(train), len(test)) == (count - held, held)


def test_data_with_a_val_of_its_own_is_not_divided(flat, tmp_path):
    (tmp_path / "Train").symlink_to(flat)
    assert len(open_part(tmp_path, "train")) + len(open_part(tmp_path, "val")) == 16  # a train folder alone is divided
    (tmp_path / "valid").symlink_to(flat)
    assert len(open_part(tmp_path, "train")) == len(open_part(tmp_path, "val")) == 16


def test_what_was_written_down_is_read_as_the_same_division(flat, tmp_path):
    train, val = open_part(flat, "train"), open_part(flat, "val")
    path = tmp_path / "run" / "split.csv"
    write_listing(path, [*train.rows("train"), *val.rows("val")])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert not any(Path(row["path"]).is_absolute() for row in rows)
    for split, part in (("train", train), ("val", val)):
        listed = ImageFolder(path, split, eval_transform((8, 8)), train.classes)
        assert listed.counts == part.counts
        for index in range(len(part)):
            assert Path(listed.path(index)).samefile(part.path(index))
            assert listed[index]["target"] == part[index]["target"]


def test_lists_as_people_have_them(flat, tmp_path):
    root = tmp_path / "kaggle"
    (root / "train").mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8)).save(root / "train" / f"{name}.jpg")
    plain = write(root / "train.csv", "﻿id;Category", "a;dog", "b;cat", "c;dog")
    reader = read_listing(plain, None)
    assert [Path(reader.filename(i)).name for i in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert (reader.class_to_idx, list(reader.targets)) == ({"cat": 0, "dog": 1}, [1, 0, 1])
    split = write(
        root / "all.csv", "file,label,set", "train/a.jpg,dog,TRAIN", "train/b.jpg,cat,train", "train/c.jpg,cat,valid"
    )
    assert ImageFolder(split, "train", eval_transform((8, 8))).counts == {"cat": 1, "dog": 1}
    assert ImageFolder(split, "val", eval_transform((8, 8)), ("cat", "dog")).counts == {"cat": 1}
    write(flat.parent / "train.csv", "path,label", "photos/cat/1.png,cat", "photos/dog/1.png,dog")
    write(flat.parent / "val.csv", "path,label", "photos/cat/2.png,cat")
    assert ImageFolder(flat.parent, "train", eval_transform((8, 8))).counts == {"cat": 1, "dog": 1}


def test_lists_as_excel_and_windows_write_them(flat):
    root = flat.parent
    lines = ("sep=;", "path;label", "photos\\cat\\1.png;cat", "photos\\dog\\1.png;dog")
    reader = read_listing(write(root / "excel.csv", *lines), None)
    assert [Path(reader.filename(i)).read_bytes() for i in range(2)] == [
        (flat / name / "1.png").read_bytes() for name in ("cat", "dog")
    ]
    write(root / "trailing.csv", "path,label,,", "photos/cat/1.png,cat,,", "photos/dog/1.png,dog,,")
    assert len(read_listing(root / "trailing.csv", None)) == 2
    with pytest.raises(ValueError, match=r"excel\.csv, line 4: the label is missing"):
        read_listing(write(root / "excel.csv", *lines[:3], "photos\\dog\\1.png;"), None)


def test_a_column_of_classes_may_be_empty_where_none_are_needed(flat):
    """As the list of a run is that was trained without labels."""
    path = write(flat / "list.csv", "path,label,split", "cat/1.png,,train", "cat/2.png,,val")
    assert [row.label for row in read_rows(path, "optional")] == ["", ""]
    with pytest.raises(ValueError, match="line 2: the label is missing"):
        read_rows(path)
    path = write(flat / "list.csv", "path,label,split", "cat/1.png,cat,train", "cat/2.png,,val")
    with pytest.raises(ValueError, match="line 3: the label is missing"):
        read_rows(path, "optional")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "has no column 'path'"),
        (("path,label",), "lists no photos"),
        (("name,kind", "a.png,cat"), r"has no column 'path' \(it has 'name', 'kind'\).* as in path,label"),
        (("path", "cat/1.png"), "has no column 'label'"),
        (("path,label", "cat/1.png,cat", "cat/2.png,"), "line 3: the label is missing"),
        (("path,label", "cat/1.png,cat", "cat/1.png,dog"), "line 3: cat/1.png is listed as 'cat' and as 'dog'"),
        (("path,label", "cat/1.png,cat", "cat/1.png,cat"), "line 3: cat/1.png is listed twice"),
        (("path,label", "cat/1.png,cat", "./cat//1.png,dog"), "line 3: ./cat//1.png is listed as 'cat' and as 'dog'"),
        (
            ("path,label,split", "cat/1.png,cat,train", "cat/1.png,cat,val"),
            "line 3: cat/1.png is listed in 'train' and in 'val'",
        ),
        ((f"path,{'x' * 200_000}", "cat/1.png,cat"), "line 1: field larger than field limit"),
        (("path,label", "cat/1.png,cat", f"{'x' * 200_000},cat"), "line 3: field larger than field limit"),
        (("path,label", "bird/1.png,bird"), "there is no bird/1.png in .*relative to the list's folder"),
        (("path,label,split", "cat/1.png,cat,test"), "lists no photo of the split 'train'; its splits are 'test'"),
    ],
)
def test_wrong_lists_are_refused_by_file_and_line(lines, says, flat):
    path = write(flat / "list.csv", *lines)
    with pytest.raises(ValueError, match=says) as caught:
        ImageFolder(path, "train", eval_transform((8, 8)))
    assert "list.csv" in str(caught.value)
    path.unlink()


def test_a_part_that_is_none_and_a_split_that_is_not_there(flat):
    for part in (0, 1, -0.2):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            HeldOut(part)
    with pytest.raises(ValueError, match="divided into train and val: there is no split 'test'"):
        open_part(flat, "test")
    with pytest.raises(ValueError, match=r"--split 0\.2 holds out a fifth"):
        ImageFolder(flat, "train", eval_transform((8, 8)))


def test_rows_keep_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    try:
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
    except (OSError, UnicodeError):
        pytest.skip("this disk takes UTF-8 names alone")
    write_listing(tmp_path / "l.csv", [Row(str(tmp_path / name), "a", "train")])
    assert Path(read_listing(tmp_path / "l.csv", ("train",)).filename(0)).exists()
