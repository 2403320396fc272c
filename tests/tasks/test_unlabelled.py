"""Photos without labels in training: a teacher says what is right, and how many of its answers stay is what is told."""

import csv
import json
import shutil
from typing import Any

import pytest
import torch
from PIL import Image

from elastic_cnn.cli import main
from elastic_cnn.tasks.check_data import check_data
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import load_recipe, train
from elastic_cnn.zoo.checkpoint import load_checkpoint, save_checkpoint

QUIET = Settings("cpu", workers=0, progress=False)


@pytest.fixture(scope="module")
def flat(photos, tmp_path_factory):
    """The photos to train on in one folder, without a word about their classes."""
    folder = tmp_path_factory.mktemp("flat")
    for path in (photos / "train").rglob("*.png"):
        shutil.copy(path, folder / f"{path.parent.name}_{path.name}")
    return folder


@pytest.fixture(scope="module")
def start(whole, tmp_path_factory):
    """The taught network, its classifier disturbed so that it answers otherwise."""
    network: Any
    network, card = load_checkpoint(whole[0])
    with torch.no_grad():
        network.fc.weight += torch.randn(network.fc.weight.shape, generator=torch.Generator().manual_seed(5))
    return save_checkpoint(tmp_path_factory.mktemp("start") / "start.safetensors", network, card)


def keys(start, teacher, *more):
    own = [f"weights={start}", f"teacher={teacher}", "network=null", "network_kwargs={}"]
    return [*own, "epochs=1", "options.mixup=0", "ema=null", "optimizer.lr=1e-30", *more]


def answers(checkpoint, folder, names):
    network, card = load_checkpoint(checkpoint)
    transform = card.transform()
    images = torch.stack([transform(Image.open(folder / name).convert("RGB")) for name in names])
    with torch.no_grad():
        return network.eval()(images).argmax(1)


def test_how_many_of_the_teachers_answers_stay_is_told(recipe_path, flat, start, whole, tmp_path):
    recipe = load_recipe(recipe_path, keys(start, whole[0], "options.split=0.5", "batch_size=4"))
    summary = train(recipe, flat, tmp_path / "run", QUIET)
    with (tmp_path / "run" / "split.csv").open() as file:
        tested = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    assert len(tested) == summary.val_images == 16
    ours = answers(tmp_path / "run" / "last.safetensors", tmp_path / "run", tested)
    theirs = answers(whole[0], tmp_path / "run", tested)
    same = float((ours == theirs).double().mean())
    assert 0 < same < 1
    assert summary.metric == "same_answers"
    assert summary.last_results["same_answers"] == pytest.approx(same)
    assert summary.last_results["changed_answers"] == pytest.approx(1 - same)
    assert f"{100 * (1 - same):.2f}% of the teacher's answers changed" in summary.headline
    assert load_checkpoint(tmp_path / "run")[1].classes == load_checkpoint(whole[0])[1].classes


def test_it_is_learnt(recipe_path, flat, start, whole, tmp_path):
    more = ["options.split=0.25", "optimizer.lr=0.05", "epochs=6", "schedule.warmup_epochs=0"]
    recipe = load_recipe(recipe_path, [*keys(start, whole[0]), *more])
    began, ended = (
        train(load_recipe(recipe_path, keys(start, whole[0], "options.split=0.25")), flat, tmp_path / "a", QUIET),
        train(recipe, flat, tmp_path / "b", QUIET),
    )
    assert ended.last_results["loss"] < 0.7 * began.last_results["loss"]


def test_photos_in_folders_that_are_no_classes(recipe_path, flat, start, whole, tmp_path):
    """By date, divided and in a list: with `labels=none` the folders say nothing."""
    names = sorted(path.name for path in flat.iterdir())
    for number, name in enumerate(names):
        place = tmp_path / "album" / ("val" if number % 4 == 0 else "train") / f"2024-0{number % 3 + 1}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / name, place / name)
    without = load_recipe(recipe_path, keys(start, whole[0], "options.labels=none"))
    summary = train(without, tmp_path / "album", tmp_path / "run", QUIET)
    assert (summary.train_images, summary.val_images, summary.metric) == (24, 8, "same_answers")
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{flat / name}\n" for name in names))
    recipe = load_recipe(recipe_path, keys(start, whole[0], "options.labels=none", "options.split=0.25"))
    assert train(recipe, tmp_path / "list.csv", tmp_path / "listed", QUIET).val_images == 8
    with pytest.raises(ValueError, match="answers another question than the data asks"):
        train(load_recipe(recipe_path, keys(start, whole[0])), tmp_path / "album", tmp_path / "other", QUIET)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--split 0.2 holds out a fifth"),
        (["options.labels=none"], "--split 0.2 holds out a fifth"),
        (["options.split=0.25", "distill.labels=0.5"], "holds pictures and no class folders"),
        (["options.labels=none", "distill.labels=0.5"], "leave out network and distill.labels"),
        (["options.labels=none", "teacher=null"], "give teacher=BASE"),
        (["options.labels=maybe"], "options.labels"),
        (["options.split=0.25", "options.skew=weights"], "goes by the classes of photos"),
    ],
)
def test_what_cannot_be(recipe_path, flat, start, whole, tmp_path, more, words):
    with pytest.raises(ValueError, match=words):
        train(load_recipe(recipe_path, keys(start, whole[0], *more)), flat, tmp_path / "run", QUIET)


def test_by_the_commands(flat, start, whole, tmp_path, capsys):
    """Trained, gone on with, and what is there told before."""
    recipe = load_recipe("distill_short", [f"weights={start}", f"teacher={whole[0]}", "options.split=0.25"])
    assert check_data(recipe, flat, QUIET, Console(False)) == 0
    command = ["train", "distill_short", f"weights={start}", f"teacher={whole[0]}", "image_size=32", "batch_size=8"]
    command += ["--data", str(flat), "--split", "0.25", "-o", str(tmp_path / "run"), "--accelerator", "cpu"]
    assert main([*command, "--no-progress", "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "of the teacher's answers changed" in told
    assert told.endswith(f"next: elastic export {tmp_path / 'run'} --format onnx\n")
    for checkpoint in (tmp_path / "run", tmp_path / "run" / "last.safetensors"):
        assert main(["eval", str(checkpoint), "--accelerator", "cpu"]) == 2
        assert f"{checkpoint} was trained on photos without labels" in capsys.readouterr().err
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert main(["train", "--resume", "-o", str(tmp_path / "run"), "--no-progress", "--workers", "0"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["last_results"] == before["last_results"]
