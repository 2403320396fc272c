"""docs/data.md on masks and annotation files: the sentences it shows are the very ones that the program says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_page import rows
from PIL import Image

from elastic_cnn.data.coco import CocoImages, CocoPlaces
from elastic_cnn.data.labels import Labels
from elastic_cnn.data.mask_files import classes_not_seen, read_mask
from elastic_cnn.data.mask_pairs import Layout, folder_pairs

TWO = Labels(("ground", "disc"))
DISC = np.array([[0, 0, 1], [0, 1, 1]], np.uint8)


def sentences(section: str) -> list[str]:
    """What happens in the cases of a section, where that is a whole sentence of the program."""
    return [happens.strip("` ") for _, happens in rows(section) if happens.startswith("`")]


def is_shown(said: str, shown: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("..."))), said, re.DOTALL) is not None


def mask(values: np.ndarray, name: str = "train00.png", **kwargs) -> Path:
    path = Path("m/trainannot") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **kwargs)
    return path


def photo(name: str = "train00.jpg") -> None:
    Path("m/train").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(Path("m/train") / name)


def pairs(layout: Layout = Layout()):  # noqa: B008
    return folder_pairs("m", "train", layout)


def layouts_of(*folders: str):
    for folder in folders:
        (Path("m") / folder).mkdir(parents=True)
    return pairs()


def npy():
    Path("m/trainannot").mkdir(parents=True)
    np.save("m/trainannot/train00.npy", DISC / 2)
    return read_mask(Path("m/trainannot/train00.npy"), TWO)


RGB = np.array([[0, 0, 0], [128, 0, 0]], np.uint8)[DISC]
MASKS = [
    lambda: read_mask(mask(DISC * 254), TWO),
    lambda: Labels(("ground", "disc"), void=0),
    lambda: read_mask(mask(DISC * 254, format="JPEG"), TWO),
    lambda: read_mask(mask(np.stack([DISC] * 3, -1), format="WEBP"), TWO),
    lambda: read_mask(mask(RGB), TWO),
    lambda: read_mask(mask(RGB), Labels(("ground", "disc"), palette=((0, 0, 0), (0, 128, 0)))),
    lambda: read_mask(mask(np.stack([DISC, DISC * 255], -1)), TWO),
    lambda: classes_not_seen([mask(DISC * 255)], TWO),
    lambda: classes_not_seen([mask(DISC * 0 + 255)], TWO),
    lambda: classes_not_seen([mask(DISC * 255)], Labels(("ground", "disc"), values={0: 0, "other": 1})),
    lambda: Labels({"disc": 1, "ground": 0}),
    npy,
    lambda: (photo(), mask(DISC, "train00_mask.png"), pairs()),
    lambda: layouts_of("train", "masks"),
    lambda: layouts_of("train", "trainannot", "images/train", "masks/train"),
    lambda: Layout("images", "masks"),
]


def coco(change=lambda content: None, **options):
    def read():
        content = {
            "images": [{"id": n, "file_name": f"{n}.png"} for n in (1, 2)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "area": 9, "bbox": [0, 0, 3, 3]}],
        }
        change(content)
        for folder in ("c/annotations", "c/images/train"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            Image.new("L", (2, 2)).save(f"c/images/train/{number}.png")
        Path("c/annotations/instances_train.json").write_text(json.dumps(content))
        CocoImages("c", options.pop("split", "train"), None, **options).annotations.require_objects()

    return read


COCO = [
    coco(lambda c: c["images"][0].update(file_name="/photos/1.png")),
    coco(lambda c: c["images"][0].update(file_name="a/2.png")),
    coco(lambda c: c["images"][0].update(file_name="7.png")),
    coco(lambda c: c["annotations"][0].pop("area")),
    coco(lambda c: [c["annotations"][0].pop(key) for key in ("area", "bbox")]),
    coco(lambda c: c["annotations"][0].update(area=0)),
    coco(lambda c: c["annotations"][0].update(image_id=10**30)),
    coco(lambda c: c["annotations"][0].update(iscrowd="no")),
    coco(lambda c: c["annotations"].clear()),
    coco(lambda c: c["images"][0].update(id="img1")),
    coco(classes=("dog", "bird")),
    coco(lambda c: c["categories"].pop(), classes=("cat", "dog")),
    coco(split="test"),
    lambda: CocoPlaces("labels.json").check_splits("train", "val"),
]


@pytest.mark.parametrize(("section", "cases"), [("Masks", MASKS), ("Annotation files", COCO)], ids=["masks", "coco"])
def test_the_page_shows_the_very_sentences(section, cases, tmp_path, monkeypatch, capsys):
    shown, said = sentences(section), []
    for number, case in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        monkeypatch.chdir(place)
        try:
            told = case()
        except ValueError as error:
            told = str(error)
        said.append(told or capsys.readouterr().err.strip().removeprefix("elastic: warning: "))
    assert len(shown) >= 10
    assert [line for line in said if not any(is_shown(line, row) for row in shown)] == []
    assert [row for row in shown if not any(is_shown(line, row) for line in said)] == []
