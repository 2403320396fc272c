"""Multi-label data whose annotations and photos lie anywhere, through the real commands; what is told and refused."""

import json
import shutil
from pathlib import Path

import pytest
from coco_files import write_coco

from elastic_cnn.cli import main
from elastic_cnn.policy.table import read_policy

RECIPE = """\
task: multilabel
network: resnext_small_elastic
network_kwargs: {channels: [8, 8, 8, 8], layers: [2, 2, 1, 1]}
image_size: 32
epochs: 1
batch_size: 8
"""
QUIET = ["--workers", "0", "--no-progress"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """labels/{train,val}.json and pictures/{train,val}/*.png, the validation set without its largest objects."""
    root = tmp_path_factory.mktemp("place")
    write_coco(root, {"train": 16, "val": 6})
    (root / "annotations").rename(root / "labels")
    (root / "images").rename(root / "pictures")
    for split in ("train", "val"):
        path = root / "labels" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        if split == "val":
            content["annotations"] = [entry for entry in content["annotations"] if entry["area"] < 96**2]
            content["categories"].reverse()
        (root / "labels" / f"{split}.json").write_text(json.dumps(content))
        path.unlink()
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def run(place, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    where = ["--annotations", str(place / "labels" / "{split}.json"), "--images", str(place / "pictures" / "{split}")]
    assert main(["train", str(place / "recipe.yaml"), *where, "-o", str(out), *QUIET]) == 0
    return out


def given(place: Path, split: str = "val") -> list[str]:
    return ["--annotations", str(place / "labels" / f"{split}.json"), "--images", str(place / "pictures" / split)]


def test_training_names_what_cannot_be_learnt(place, tmp_path, capsys):
    assert main(["train", str(place / "recipe.yaml"), "--data", str(place), "-o", str(tmp_path / "r"), *QUIET]) == 2
    assert "has no annotations for the split 'train'" in capsys.readouterr().err
    where = ["options.annotations=labels/{split}.json", "options.images=pictures/{split}"]
    command = ["train", str(place / "recipe.yaml"), "--data", str(place), "-o", str(tmp_path / "r"), *QUIET, *where]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "labels/train.json is of the class white, which cannot be learnt: leave out what is no class" in told.err
    assert "% of the 3 that occur) (small, medium, large: - / " in told.out
    assert main(["eval", str(tmp_path / "r"), "--data", str(place), *QUIET]) == 0  # the checkpoint knows the places


def test_a_run_is_tested_on_its_own_data_wherever_that_lies(run, place, capsys):
    assert main(["eval", str(run), *given(place), *QUIET]) == 0
    told = capsys.readouterr().out.split("\n", 1)[1]
    assert main(["eval", str(run), *QUIET]) == 0
    assert capsys.readouterr().out.split("\n", 1)[1] == told
    assert f"next: elastic eval {run} -o {run}/report" in told


def test_what_does_not_occur_has_no_score(run, place, tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert main(["eval", str(run), *given(place), "--json", str(out), *QUIET]) == 0
    told = capsys.readouterr().out
    assert "  f1_overall_large: -\n" in told
    assert "  f1_per_class_present_small: -\n" in told
    results = json.loads(out.read_text())
    assert results["f1_overall_large"] is None
    names, f1s = results["class_names"], results["class_f1"]
    assert [name for name, f1 in zip(names, f1s, strict=True) if f1 is None] == ["white"]
    assert results["f1_per_class_present"] == pytest.approx(results["f1_per_class"] * 4 / 3)


def test_policies_and_stress_of_photos_anywhere(run, place, tmp_path, capsys):
    out = tmp_path / "policy"
    arguments = [*given(place), "-o", str(out), "--device", "cpu", "--no-figures", *QUIET]
    assert main(["policy", str(run), *arguments]) == 0
    table = read_policy(out)
    assert sorted(table.column("path")) == [f"{number}.png" for number in range(6)]
    assert main(["stress", str(run), *given(place), "--sizes", "24,32", *QUIET]) == 0
    assert "F1 per class" in capsys.readouterr().out


def test_one_file_for_both_splits(place, tmp_path, capsys):
    command = ["train", str(place / "recipe.yaml"), "-o", str(tmp_path / "r"), *QUIET, *given(place, "train")]
    assert main(command) == 2
    assert "would be the file of train and of val: write {split}" in capsys.readouterr().err
    same = ["options.train_split=train", "options.val_split=train"]
    assert main([*command, *same]) == 0
    assert "warning: training and testing read the same file, " in capsys.readouterr().err


def test_the_same_photos_in_two_files_and_a_file_of_no_objects(place, tmp_path, capsys):
    (tmp_path / "pictures").symlink_to(place / "pictures" / "train")
    content = json.loads((place / "labels" / "train.json").read_text())
    content["categories"].append({"id": 99, "name": "White"})
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    where = ["--annotations", str(tmp_path / "{split}.json"), "--images", str(tmp_path / "pictures")]
    command = ["train", str(place / "recipe.yaml"), *where, "-o", str(tmp_path / "r"), "--check-data", *QUIET]
    assert main(command) == 0
    count = len(content["images"])
    told = capsys.readouterr().err
    assert f"{count} of the {count} photos of val are photos of train too" in told
    assert "train: the classes 'white' and 'White' differ in case or spaces alone: are they one?" in told
    (tmp_path / "train.json").write_text(json.dumps({**content, "annotations": []}))
    assert main(command) == 2
    assert "train.json has no object of any class: there is nothing to learn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["eval", "RUN", "--images", "."], "the data is missing"),
        (["stress", "LONE"], "the data is missing: give --data DIR, or --annotations FILE --images DIR"),
        (["train", "RECIPE", "-o", "OUT"], "the data is missing"),
        (["train", "small_images", "--annotations", "a.json", "--images", ".", "-o", "OUT"],
         "unknown key 'options.annotations'"),
        (["eval", "RUN", "--annotations", "HUGE", "--images", "PICTURES"], "huge.json: image number 0 lacks a whole"),
        (["eval", "RUN", "--annotations", "NOISE", "--images", "PICTURES"], "noise.json is not valid JSON"),
    ],
)  # fmt: skip
def test_wrong_arguments_and_files_are_one_line(command, message, run, place, tmp_path, capsys):
    content = json.loads((place / "labels" / "val.json").read_text())
    content["images"][0]["id"] = 10**30
    (tmp_path / "huge.json").write_text(json.dumps(content))
    (tmp_path / "noise.json").write_bytes(bytes(range(256)))
    known = {"RUN": run, "RECIPE": place / "recipe.yaml", "OUT": tmp_path / "out", "HUGE": tmp_path / "huge.json"}
    known |= {"NOISE": tmp_path / "noise.json", "PICTURES": place / "pictures" / "val"}
    known["LONE"] = shutil.copy(run / "best.safetensors", tmp_path)  # away from the run, whose folder knows its data
    assert main([str(known.get(word, word)) for word in command]) == 2
    told = capsys.readouterr().err
    assert told.startswith("elastic: error: ")
    assert message in told
    assert told.count("\n") == 1


def test_annotations_of_other_tasks_are_refused(tiny, place, tmp_path, capsys):
    recipe = tiny / "tiny.yaml"
    assert main(["train", str(recipe), "--data", str(tiny / "photos"), "-o", str(tmp_path / "r"), *QUIET]) == 0
    capsys.readouterr()
    for command in (["eval", str(tmp_path / "r")], ["policy", str(tmp_path / "r"), "-o", str(tmp_path / "p")]):
        assert main([*command, *given(place), *QUIET]) == 2
        assert "--annotations and --images are for multi-label data; this checkpoint is for classification" in (
            capsys.readouterr().err
        )
