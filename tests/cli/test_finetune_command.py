"""`elastic train finetune`: one command from a folder that nobody divided, and going on without saying it all again."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from elastic_cnn.cli import main
from elastic_cnn.zoo.checkpoint import read_card

SMALL = ["network_kwargs={stem_width: 8, channels: [8, 8, 16, 16]}", "weights=null", "image_size=32", "batch_size=4"]
MACHINE = ["--accelerator", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def undivided(tiny, tmp_path_factory) -> Path:
    """Eight photos of each of two classes, in class folders alone."""
    root = tmp_path_factory.mktemp("undivided") / "photos"
    for split in ("train", "val"):
        for photo in (tiny / "photos" / split).glob("*/*.png"):
            (root / photo.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, root / photo.parent.name / f"{split}{photo.name}")
    return root


def train(*arguments: object) -> int:
    return main(["train", *map(str, arguments), *MACHINE])


def test_from_a_folder_to_a_run_that_goes_on_by_itself(undivided, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    start = ["finetune", "--data", undivided, "--network", "resnet10t", *SMALL, "-o", run]
    assert train(*start, "--elastic", "--find-lr", "--split", "0.25", "epochs=1", "convert.photos=4") == 0
    printed = capsys.readouterr().out
    for said in (
        "train: 12 photos",
        "val: 4 photos",
        "on 4 photos of 32 x 32 pixels",
        "learning rate found: ",
        "next: ",
    ):
        assert said in printed
    with (run / "split.csv").open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert (splits.count("train"), splits.count("val")) == (12, 4)
    assert read_card(run).elastic is not None
    monkeypatch.chdir(tmp_path)  # the folder knows its recipe and its data wherever it is called from
    assert train("--resume", "-o", run) == 0
    assert "has come to its end already" in capsys.readouterr().out
    assert train("--extend", "epochs=2", "-o", run) == 0
    assert "epoch 2/2: loss" in capsys.readouterr().out
    assert json.loads((run / "summary.json").read_text())["epochs_done"] == 2
    assert main(["stress", str(run), "--sizes", "32", "--accelerator", "cpu", "--workers", "0", "--no-progress"]) == 0
    assert "4 images of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name a recipe (`elastic train finetune"),
        (("epochs=2",), "name a recipe"),
        (("--resume",), "holds no run (no recipe.yaml)"),
        (("--check-data",), "--check-data goes with a recipe"),
        (("finetune", "--check-data", "--data", "nowhere"), "there is no folder nowhere"),
        (("--extend", "epochs=3"), "holds no run"),
        (("--extend", "seed=3"), "goes on with epochs, patience, val_every, log_every changed, nothing else"),
        (("finetune", "--extend", "epochs=3"), "leave finetune out"),
        (("finetune", "--data", "nowhere", "--split", "1.5"), "split=1.5 must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_begun_or_gone_on_with(arguments, says, tmp_path, capsys):
    assert train(*arguments, "-o", tmp_path / "none") == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_data_is_checked_without_a_run_and_a_run_needs_its_folder(undivided, tmp_path, capsys, monkeypatch):
    """Every photo is read, also by other processes; the last line is the command that trains."""
    monkeypatch.chdir(tmp_path)
    (undivided / "dark" / "torn.png").write_bytes(b"\x89PNG")
    words = ["train", "finetune", "image_size=32", "--data", str(undivided), "--split", "0.25", "--elastic"]
    try:
        assert main([*words, "--check-data", "--workers", "1"]) == 0
        said = capsys.readouterr()
        assert "16 of 17 photos can be read, 1 are left out" in said.out
        assert f"left out: {undivided / 'dark' / 'torn.png'} cannot be read" in said.err
        last = said.out.splitlines()[-1]
        assert last == f"next: elastic {' '.join(words[:3])} --data {undivided} --split 0.25 --elastic -o runs/mine"
        assert main([*words, "--check-data", "--workers", "0", "--strict"]) == 2
    finally:
        (undivided / "dark" / "torn.png").unlink()
    assert main(words) == 2
    assert "-o is missing: name a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_of_which_nothing_can_be_read_is_not_recommended(tmp_path, capsys):
    for place in ("train/a", "train/b", "val/a"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "1.png").write_bytes(b"\x89PNG")
    words = ["train", "finetune", "--network", "resnet10t", "image_size=32", "--data", str(tmp_path)]
    assert main([*words, "--check-data", "--workers", "0"]) == 2
    said = capsys.readouterr()
    assert "none of the 3 photos can be read, the last being" in said.err
    assert "next:" not in said.out


def test_a_run_that_is_as_long_already_is_not_extended(tiny, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(tiny / "tiny.yaml", "--data", tiny / "photos", "-o", run) == 0
    assert train("--extend", "epochs=1", "-o", run) == 2
    assert "the run has 1 epochs already: give more, in all" in capsys.readouterr().err
    (run / "data.json").unlink()
    assert train("--resume", "-o", run) == 2
    assert "does not say where its data lies: give --data DIR" in capsys.readouterr().err
    assert train("--resume", "-o", run, "--data", tiny / "photos") == 0
    assert json.loads((run / "data.json").read_text())["data"] == str(tiny / "photos")
