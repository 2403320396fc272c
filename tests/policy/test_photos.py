"""Opening photos of every layout, with paths below the data's root."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.policy import fingerprint
from elastic_cnn.policy.names import readable
from elastic_cnn.policy.photos import open_or_none, open_path_or_none, open_photos

PREPARATION = {"size": (16, 16)}


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (value, value, value)).save(file, "png")
    return file.getvalue()


def test_shards_are_read_by_index(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"val-{shard}.tar", "w") as archive:
            for number in range(3):
                for name, data in ((f"{number}.png", png(10 * shard + number)), (f"{number}.cls", b"cat")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    photos = open_photos(f"wds/{tmp_path}", "val", "classification", ("cat",), PREPARATION)
    assert len(photos) == 6
    assert photos.root == str(tmp_path)
    assert photos.path(4) == "val-1.tar:1.png"
    sample = photos[4]
    assert sample["image"].shape == (3, 16, 16)
    assert photos.label(4, int(sample["target"])) == "cat"
    assert np.asarray(photos.photo(4))[0, 0, 0] == 11


def test_coco_has_labels_and_sizes_of_the_networks_classes(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    for number in (1, 2):
        (tmp_path / "val" / f"{number}.png").write_bytes(png(number))
    names = ["person", "cat", "dog"]
    objects = [(1, 1, 400), (1, 2, 100), (1, 3, 25), (2, 1, 9)]  # image, category, area
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "area": area, "iscrowd": 0}
            for i, (image, category, area) in enumerate(objects)
        ],
    }
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    photos = open_photos(str(tmp_path), "val", "multilabel", ("cat", "dog"), PREPARATION)
    assert [photos.label(i) for i in range(2)] == [["cat", "dog"], []]
    assert [photos.object_sizes(i) for i in range(2)] == [[10.0, 5.0], []]
    assert photos.path(0) == "val/1.png"
    assert np.asarray(photos.photo(1))[0, 0, 0] == 2
    with pytest.raises(ValueError, match="none of the classes to choose from"):
        open_photos(str(tmp_path), "val", "multilabel", ("bird",), PREPARATION)


def test_broken_sizes_are_named(photos, tmp_path):
    (tmp_path / "val" / "red").mkdir(parents=True)
    (tmp_path / "val" / "red" / "a.png").write_bytes(png(1))
    long = b"path,size\n" + b"x" * 200_000 + b",1\n"  # more than csv takes in one field
    for content in (b"path,size\nval/red/a.png,big\n", b"\0" * 9, bytes(range(256)), b"path,size\na\0b,1\n\xff", long):
        (tmp_path / "sizes.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"sizes\.csv is no table"):
            open_photos(str(tmp_path), "val", "classification", (), PREPARATION)


def test_segmentation_has_no_table(tmp_path):
    with pytest.raises(ValueError, match="for segmentation"):
        open_photos(str(tmp_path), "val", "segmentation", (), PREPARATION)


def test_figures_open_photos_that_exist_below_the_root_alone(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(png(7))
    (root / "b.png").write_bytes(b"?")
    (tmp_path / "outside.png").write_bytes(png(7))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    outside = ["../outside.png", "sub/../../outside.png", str(tmp_path / "outside.png")]
    opener = open_path_or_none(root, ["a.png", "link.png", "b.png", "none.png", *outside])
    assert [opener(row) is not None for row in range(7)] == [True, True] + [False] * 5
    (root / "link.png").unlink()
    photos = open_photos(str(root), "val", "classification", (), PREPARATION)
    opener = open_or_none(photos, [1, 0])
    assert opener(0) is None
    assert opener(1).size == (20, 20)


def test_fingerprints_tell_lists_of_photos_apart(photos, tmp_path):
    (tmp_path / "a.png").write_bytes(png(7))
    one = open_photos(str(tmp_path), "val", "classification", (), PREPARATION)
    (tmp_path / "b.png").write_bytes(png(8))
    two = open_photos(str(tmp_path), "val", "classification", (), PREPARATION)
    assert fingerprint.of_photos(one) != fingerprint.of_photos(two)
    assert fingerprint.of_file(tmp_path / "a.png") != fingerprint.of_file(tmp_path / "b.png")


def test_synset_numbers_get_their_word():
    assert [readable(name) for name in ("n01440764", "n99999999", "cat")] == ["tench", "n99999999", "cat"]
