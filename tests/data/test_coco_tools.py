"""Files of COCO's format as tools write them: names, layouts and fields, read right or refused in words."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.data.coco import CocoImages, CocoPlaces, read_annotations

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 5, "name": "c"}]


def content() -> dict:
    """Three images; the first holds a small a and a medium b, the second a large c, the third nothing."""
    boxes = [(1, 1, 20), (1, 2, 40), (2, 5, 100)]
    return {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)],
        "categories": [dict(category) for category in CATEGORIES],
        "annotations": [
            {"id": 10 + n, "image_id": image, "category_id": c, "bbox": [1, 2, s, s], "area": s * s, "iscrowd": 0}
            for n, (image, c, s) in enumerate(boxes)
        ],
    }


def write(root: Path, data: dict, annotations="annotations/instances_train.json", photos="images/train") -> Path:
    for number in (1, 2, 3):
        path = root / photos / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(path)
    (root / annotations).parent.mkdir(parents=True, exist_ok=True)
    (root / annotations).write_text(json.dumps(data))
    return root


def first_pixel(photo: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(photo)[:1, :1, 0].copy())


def check(root: Path, split: str = "train", places: CocoPlaces = CocoPlaces(), **options) -> CocoImages:  # noqa: B008
    """Every photo is its own (its red is its id), with its labels and sizes."""
    found = CocoImages(root, split, first_pixel, places, **options)
    assert [int(found[i]["image"]) for i in range(3)] == [1, 2, 3]
    assert [found.label(i) for i in range(3)] == [["a", "b"], ["c"], []]
    assert found[0]["size_targets"].nonzero().tolist() == [[0, 0], [1, 1]]
    assert found[1]["size_targets"].nonzero().tolist() == [[2, 2]]
    return found


NAMES = {
    "as COCO": "{}.png",
    "from the data folder": "images/train/{}.png",
    "with backslashes": "images\\train\\{}.png",
    "dots": "./images//train/./{}.png",
    "folders of another machine": "upload/7/{}.png",
    "backslashes of another machine": "job_3\\frames\\{}.png",
}


@pytest.mark.parametrize("kind", NAMES)
def test_photos_are_found_by_names_of_tools(kind, tmp_path):
    data = content()
    for image in data["images"]:
        image["file_name"] = NAMES[kind].format(image["id"])
    found = check(write(tmp_path, data))
    assert found.path(0) == "images/train/1.png"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/{}.png", "leads out of the data"),
        ("C:\\photos\\{}.png", "leads out of the data"),
        ("../images/train/{}.png", "leads out of the data"),
        ("a/../../{}.png", "leads out of the data"),
        ("..\\{}.png", "leads out of the data"),
        ("x/../{}.png", "leads out of the data"),
        ("", "names no file"),
        ("./", "names no file"),
        ("a\0{}.png", "names no file"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name, message, tmp_path):
    data = content()
    data["images"][1]["file_name"] = name.format(2)
    write(tmp_path, data)
    with pytest.raises(ValueError, match=rf"instances_train\.json: the file_name .* of image 2 {message}"):
        CocoImages(tmp_path, "train", first_pixel)


LAYOUTS = [
    ("annotations/instances_train.json", "images/train", "train"),
    ("annotations/instances_train.json", "train", "train"),
    ("annotations/instances_train.json", "images", "train"),
    ("annotations/instances_train.json", "photos", "train"),
    ("annotations/instances_train2017.json", "train2017", "train"),
    ("train/_annotations.coco.json", "train", "train"),
    ("valid/_annotations.coco.json", "valid", "val"),
    ("annotations/train.json", "images/train", "train"),
    ("train.json", "images", "train"),
    ("val.json", ".", "val"),
    ("annotations/instances_default.json", "images/default", "default"),
    ("annotations/instances_validation.json", "images", "val"),
]


@pytest.mark.parametrize(("annotations", "photos", "split"), LAYOUTS)
def test_layouts_of_tools_are_found(annotations, photos, split, tmp_path):
    data = content()
    if photos == "photos":  # found by the names alone
        for image in data["images"]:
            image["file_name"] = f"photos/{image['file_name']}"
    check(write(tmp_path, data, annotations, photos), split)


def test_a_file_and_a_folder_anywhere(tmp_path):
    write(tmp_path, content(), "labels/fold-3.json", "pictures")
    message = (
        r"has no annotations for the split 'train': .* it holds labels/fold-3\.json\. Name the file with options\.ann"
    )
    with pytest.raises(ValueError, match=message):
        CocoImages(tmp_path, "train", first_pixel)
    places = CocoPlaces(str(tmp_path / "labels" / "fold-3.json"), str(tmp_path / "pictures"))
    assert check(tmp_path, "any", places).path(1) == "pictures/2.png"
    assert check(tmp_path, "fold-3", CocoPlaces("labels/{split}.json", "pictures")).path(1) == "pictures/2.png"
    elsewhere = check(tmp_path / "labels", "any", places)
    assert elsewhere.path(1) == (tmp_path / "pictures" / "2.png").as_posix()
    for bad, message in (
        (CocoPlaces("nothing.json"), "there is no annotation file"),
        (CocoPlaces("labels/fold-3.json", "nowhere"), "there is no folder of photos"),
        (CocoPlaces("labels/fold-3.json", "labels"), r"labels lacks 3 of the 3 images .*options\.images \(--images\)"),
    ):
        with pytest.raises(ValueError, match=message):
            CocoImages(tmp_path, "train", first_pixel, bad)
    with pytest.raises(ValueError, match=r"would be the file of train and of val: write {split}"):
        CocoPlaces("labels/fold-3.json").check_splits("train", "val")


@pytest.mark.parametrize(("one", "two"), [("a/1.png", "b/1.png"), ("1.png", "1.png"), ("1.png", "./1.png")])
def test_one_file_under_two_ids_is_refused(one, two, tmp_path):
    data = content()
    data["images"][0]["file_name"], data["images"][1]["file_name"] = one, two
    with pytest.raises(ValueError, match=r"the images 1 and 2 are both the file .*1\.png: give all its objects one"):
        CocoImages(write(tmp_path, data), "train", first_pixel)


def each(change):
    def edit(data):
        for annotation in data["annotations"]:
            change(annotation)

    return edit


def whole_floats(data):
    for entry in (*data["images"], *data["categories"], *data["annotations"]):
        entry.update({key: float(value) for key, value in entry.items() if key == "id" or key.endswith("_id")})


FIELDS = {
    "no area": each(lambda a: a.pop("area")),
    "area null": each(lambda a: a.update(area=None)),
    "iscrowd null": each(lambda a: a.update(iscrowd=None)),
    "iscrowd false": each(lambda a: a.update(iscrowd=False)),
    "iscrowd 0.0": each(lambda a: a.update(iscrowd=0.0)),
    "no iscrowd": each(lambda a: a.pop("iscrowd")),
    "no id": each(lambda a: a.pop("id")),
    "text as id of annotations": each(lambda a: a.update(id=f"n{a['id']}")),
    "whole floats": whole_floats,
    "area with a fraction": each(lambda a: a.update(area=a["area"] + 0.5)),
    "a mark before the text": lambda data: None,
}


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_of_tools_are_read(kind, tmp_path, capsys):
    data = content()
    FIELDS[kind](data)
    path = write(tmp_path, data) / "annotations" / "instances_train.json"
    if kind == "a mark before the text":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check(tmp_path)
    told = capsys.readouterr().err
    if kind in ("no area", "area null"):
        assert told == (
            f"elastic: warning: {path}: 3 of 3 objects have no `area`: that of their box decides on their size\n"
        )
    else:
        assert told == ""


def test_a_true_crowd_is_one(tmp_path):
    data = content()
    data["annotations"][1]["iscrowd"] = True
    path = write(tmp_path, data) / "annotations" / "instances_train.json"
    assert len(read_annotations(path).areas) == 3
    assert read_annotations(path, crowds="drop").dropped == {"crowd": 1}


def put(key, value):
    return lambda data: data["annotations"][1].update({key: value})


WRONG = {
    "a huge image id": (put("image_id", 10**30), "`image_id` of annotation number 1 is no whole number"),
    "a huge category id": (put("category_id", -(10**30)), "`category_id` of annotation number 1 is no whole number"),
    "ids of images that are huge": (lambda d: d["images"][2].update(id=10**30), "image number 2 lacks a whole `id`"),
    "ids of categories that are huge": (
        lambda d: d["categories"][0].update(id=2**70),
        "category number 0 lacks a whole",
    ),
    "an endless id": (put("image_id", float("inf")), "`image_id` of annotation number 1 is no whole number"),
    "a fraction as id": (put("category_id", 1.5), "`category_id` of annotation number 1 is no whole number"),
    "a huge area": (put("area", 10**400), "`area` of annotation number 1 is no number"),
    "text as area": (put("area", "400"), "`area` of annotation number 1 is no number"),
    "truth as area": (put("area", True), "`area` of annotation number 1 is no number"),
    "text as iscrowd": (put("iscrowd", "no"), "`iscrowd` of annotation number 1 is no 0 or 1"),
    "text as image id": (lambda d: d["images"][0].update(id="img1"), "image number 0 lacks a whole `id`"),
    "a list as id": (put("image_id", [1]), "`image_id` of annotation number 1 is no whole number"),
    "area null without a box": (each(lambda a: (a.pop("bbox"), a.update(area=None))), "number 0 has no `area`, and no"),
    "area null, half a box": (
        each(lambda a: a.update(area=None, bbox=[1, 2])),
        "number 0 has no `area`, and no `bbox`",
    ),
    "area null, a box of text": (each(lambda a: a.update(area=None, bbox=list("1234"))), "no `bbox` of four numbers"),
    "no id, of no image": (each(lambda a: (a.pop("id"), a.update(image_id=77))), "annotation number 0 is of image 77"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_fields_without_one_meaning_are_refused(kind, tmp_path):
    change, message = WRONG[kind]
    data = content()
    change(data)
    path = write(tmp_path, data) / "annotations" / "instances_train.json"
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(path)
    assert "instances_train.json" in str(error.value)


def test_categories_are_matched_by_name(tmp_path, capsys):
    """Other ids, another order, one that is missing, one that nothing uses."""
    data = content()
    data["categories"] = [{"id": 9, "name": "unused"}, {"id": 2, "name": "c"}, {"id": 40, "name": "a"}]
    data["annotations"] = [
        {"image_id": 1, "category_id": 40, "area": 400},
        {"image_id": 2, "category_id": 2, "area": 400},
    ]
    found = CocoImages(write(tmp_path, data), "train", first_pixel, classes=("a", "b", "c"))
    assert found.classes == ("a", "b", "c")
    assert found.annotations.targets.tolist() == [[True, False, False], [False, False, True], [False] * 3]
    assert found.annotations.unused == ["b"]
    assert "instances_train.json has no category 'b': no image counts as one of it" in capsys.readouterr().err
    path = found.annotations.path
    with pytest.raises(ValueError, match=r"has objects of 'c', which the classes to choose from lack \('a', 'b'\)"):
        read_annotations(path, classes=("a", "b"))
    left = read_annotations(path, classes=("a", "b"), others="drop")
    assert left.targets.tolist() == [[True, False], [False, False], [False, False]]
    assert left.dropped == {"category excluded": 1}
    with pytest.raises(ValueError, match="has none of the classes to choose from"):
        read_annotations(path, classes=("x", "y"))
    without = read_annotations(path, classes=("a", "b"), exclude=("c", "d"))  # `d` is but in the training file
    assert without.targets.sum() == 1
