"""COCO files against a slow reading of the same JSON, and every way in which a file can be broken."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from elastic_cnn.data.coco import CocoImages, find_split, read_annotations
from elastic_cnn.data.sampler import UnreadableSample


def to_tensor(photo: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1).float() / 255


def make_content(seed: int = 0, images: int = 6, annotations: int = 20) -> dict:
    """Ids with gaps and in no order, polygons and run-length masks, areas at the bounds, images without an object."""
    rng = random.Random(seed)
    category_ids = [90, 3, 17, 1]
    image_ids = rng.sample(range(10, 10**6), images)
    entries = []
    for number in range(annotations):
        crowd = rng.random() < 0.2
        polygons = [[rng.random() * 9, 2.5e-1, -3], [1, 2, 3, 4]]
        entries.append(
            {
                "segmentation": {"counts": [1, 2], "size": [4, 4]} if crowd else polygons,
                "area": rng.choice([0.5, 1023.9999999, 1024, 9215.99, 9216, 20000.25]),
                "iscrowd": int(crowd),
                "image_id": rng.choice(image_ids[: max(1, images - 2)]),
                "category_id": rng.choice(category_ids[:3]),
                "id": 1000 - number,
            }
        )
    return {
        "info": {"description": 'the text "segmentation": [1, 2] in a string'},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "width": 4, "height": 3} for i in image_ids],
        "categories": [{"id": c, "name": f"class {c}"} for c in category_ids],
        "annotations": entries,
    }


def write_split(root: Path, content: dict, split: str = "train", images: str = "train") -> Path:
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        Image.new("RGB", (4, 3), (255, 0, 128)).save(root / images / entry["file_name"])
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def slow_size_targets(
    content: dict, exclude: tuple[str, ...], drop_crowds: bool
) -> dict[int, dict[tuple[str, str], int]]:
    """{image id: {(class, size): objects}}, one annotation at a time."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts: dict[int, dict[tuple[str, str], int]] = {image["id"]: {} for image in content["images"]}
    for annotation in content["annotations"]:
        name = names[annotation["category_id"]]
        if name in exclude or (drop_crowds and annotation["iscrowd"]):
            continue
        area = annotation["area"]
        size = "small" if area < 32 * 32 else "medium" if area < 96 * 96 else "large"
        cell = counts[annotation["image_id"]]
        cell[name, size] = cell.get((name, size), 0) + 1
    return counts


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 9),
    annotations=st.integers(0, 40),
    exclude=st.sampled_from([(), ("class 3",), ("class 90", "class 1")]),
    drop_crowds=st.booleans(),
)
def test_targets_equal_a_slow_reading(tmp_path_factory, seed, images, annotations, exclude, drop_crowds):
    content = make_content(seed, images, annotations)
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    path.write_text(json.dumps(content, indent=random.Random(seed).choice([None, 1])))
    read = read_annotations(path, exclude=exclude, crowds="drop" if drop_crowds else "label")
    expected = slow_size_targets(content, exclude, drop_crowds)

    ids = sorted(category["id"] for category in content["categories"])
    assert read.classes == tuple(f"class {c}" for c in ids if f"class {c}" not in exclude)
    assert read.image_ids.tolist() == sorted(expected)
    assert len(read.areas) == sum(sum(cell.values()) for cell in expected.values())
    assert len(read.areas) + sum(read.dropped.values()) == annotations
    for n, image_id in enumerate(read.image_ids.tolist()):
        found = {
            (name, size)
            for s, size in enumerate(("small", "medium", "large"))
            for c, name in enumerate(read.classes)
            if read.size_targets[n, s, c]
        }
        assert found == set(expected[image_id])
        assert len(read.areas[read.objects(n)]) == sum(expected[image_id].values())
        assert read.targets[n].tolist() == [any(name == pair[0] for pair in found) for name in read.classes]


def test_samples_carry_labels_and_sizes(tmp_path):
    content = make_content()
    content["annotations"] = [
        {"id": 1, "image_id": content["images"][2]["id"], "category_id": 17, "area": 900},
        {"id": 2, "image_id": content["images"][2]["id"], "category_id": 3, "area": 10000, "iscrowd": 1},
    ]
    write_split(tmp_path, content, images="images/train")
    samples = CocoImages(tmp_path, "train", to_tensor, exclude=("class 1",))
    assert samples.classes == ("class 3", "class 17", "class 90")
    n = samples.annotations.image_ids.tolist().index(content["images"][2]["id"])
    sample = samples[n]
    assert sample["image"].shape == (3, 3, 4)
    assert sample["targets"].tolist() == [1, 1, 0]
    assert sample["size_targets"].int().tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert samples.label(n) == ["class 3", "class 17"]
    assert sorted(samples.object_sizes(n)) == [30, 100]
    assert samples.path(n) == f"images/train/{content['images'][2]['file_name']}"
    without = CocoImages(tmp_path, "train", to_tensor, exclude=("class 1",), crowds="drop")
    assert without.label(n) == ["class 17"]  # an annotation without `iscrowd` is no crowd
    empty = (n + 1) % len(samples)
    assert samples.label(empty) == []
    assert samples.object_sizes(empty) == []
    assert samples[empty]["targets"].sum() == 0


def test_layouts_of_2014_and_2017_are_found(tmp_path):
    path = write_split(tmp_path, make_content(), "train2017", "train2017")
    for split in ("train", "train2017"):
        found, folders = find_split(tmp_path, split)
        assert (found, folders[0]) == (path, tmp_path / "train2017")
    write_split(tmp_path, make_content(), "train2014", "train2014")
    with pytest.raises(ValueError, match=r"more than one .*instances_train2014\.json, instances_train2017\.json"):
        find_split(tmp_path, "train")
    with pytest.raises(ValueError, match=r"no annotations for the split 'val'"):
        find_split(tmp_path, "val")
    (tmp_path / "train2014").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"lacks 6 of the 6 images of .*instances_train2014\.json, the first is "):
        CocoImages(tmp_path, "train2014", to_tensor)


def changed(change) -> str:
    content = make_content()
    for entry in content["annotations"]:
        entry["area"] = 50
    change(content)
    return json.dumps(content)


def put(key: str, number: int, **values):
    return lambda content: content[key][number].update(values)


BROKEN = {
    "empty": ("", "is empty"),
    "truncated": (changed(lambda c: None)[:-40], "not valid JSON .*truncated"),
    "a list": ("[1]", "holds a list"),
    "captions": ('{"images": [], "annotations": []}', "no list 'categories'"),
    "no image_id": (changed(lambda c: c["annotations"][4].pop("image_id")), "annotation number 4 lacks `image_id`"),
    "no area": (changed(lambda c: c["annotations"][4].pop("area")), "annotation number 4 has no `area`, and no `bbox`"),
    "text as id": (changed(put("annotations", 2, category_id="17")), "`category_id` of annotation number 2"),
    "unknown image": (changed(put("annotations", 2, image_id=5)), "annotation 998 is of image 5"),
    "unknown category": (changed(put("annotations", 2, category_id=91)), "annotation 998 is of category 91"),
    "zero area": (changed(put("annotations", 3, area=0)), r"annotation 997 of image \d+ has the area 0 \(1 such\)"),
    "negative area": (changed(put("annotations", 3, area=-2)), "annotation 997 has the area -2"),
    "area NaN": (changed(put("annotations", 3, area=float("nan"))), "annotation 997 has the area nan"),
    "image twice": (changed(lambda c: c["images"].append(c["images"][0])), r"the image id \d+ is given twice"),
    "name twice": (changed(put("categories", 0, name="class 3")), "two categories are named 'class 3'"),
    "no file name": (changed(lambda c: c["images"][1].pop("file_name")), "image number 1 lacks"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named(tmp_path, kind):
    text, message = BROKEN[kind]
    path = tmp_path / "instances_bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert "instances_bad.json" in str(error.value)


def test_where_json_breaks_is_told_for_the_file_itself(tmp_path):
    text = json.dumps(make_content(), indent=1)
    path = tmp_path / "instances.json"
    path.write_text(text[:-30])
    line = text[:-30].count("\n") + 1
    with pytest.raises(ValueError, match=f"line {line} column"):
        read_annotations(path)


def test_objects_of_area_zero_are_kept_or_dropped_on_demand(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(changed(put("annotations", 3, area=0)))
    kept, dropped = (read_annotations(path, zero_area=choice) for choice in ("keep", "drop"))
    assert len(kept.areas) == len(dropped.areas) + 1 == 20
    assert dropped.dropped == {"area 0": 1}
    assert (kept.areas == 0).sum() == 1


def test_names_to_exclude_must_exist(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(make_content()))
    with pytest.raises(ValueError, match="no category 'persn' to exclude; it has class 1, class 3"):
        read_annotations(path, exclude=("persn",))
    with pytest.raises(ValueError, match="all 4 categories are excluded"):
        read_annotations(path, exclude=("class 1", "class 3", "class 17", "class 90"))
    with pytest.raises(ValueError, match="there is no annotation file"):
        read_annotations(tmp_path / "other.json")


def test_missing_and_broken_images_are_named(tmp_path):
    content = make_content()
    write_split(tmp_path, content)
    names = sorted(entry["file_name"] for entry in content["images"])
    (tmp_path / "train" / names[1]).write_bytes(b"no photo")
    samples = CocoImages(tmp_path, "train", to_tensor)
    with pytest.raises(UnreadableSample, match=names[1]):
        samples[1]
    (tmp_path / "train" / names[2]).unlink()
    with pytest.raises(ValueError, match=rf"lacks 1 of the 6 images of .*{names[2]}"):
        CocoImages(tmp_path, "train", to_tensor)


def test_real_annotations(shared):
    """Counted from the JSON with other tools: 79 classes, 5,032 and 1,715 labels without `person`."""
    root = shared / "data" / "coco_person"
    train = CocoImages(root, "train", to_tensor, exclude=("person",), zero_area="keep")
    val = CocoImages(root, "val", to_tensor, exclude=("person",))
    assert (len(train), len(val), len(train.classes)) == (2006, 687, 79)
    assert (train.annotations.targets.sum(), val.annotations.targets.sum()) == (5032, 1715)
    assert min(val[0]["image"].shape[1:]) == 224
