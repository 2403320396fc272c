"""A run that was killed and resumed ends as one that was not: the same weights, to the bit, and the same logs."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import Killed, crash_at, rows
from safetensors.torch import load_file

from elastic_cnn.tasks import run_folder
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.failures import explain
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import Interrupted, train
from elastic_cnn.zoo.checkpoint import read_card


def assert_same_weights(one: Path, two: Path) -> None:
    """Equal tensors, to the bit, and equal cards: recipe, epoch and all results."""
    a, b = load_file(one), load_file(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a), one.name
    assert read_card(one) == read_card(two)


def assert_same_run(out: Path, expected: Path) -> None:
    """Equal weights files (cards with all results included), states and logs."""
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(out / name, expected / name)
    for name in ("train.csv", "val.csv"):
        assert rows(out / name) == rows(expected / name)
    one, two = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (out, expected))
    for part in ("task", "ema"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in two[part])
    momenta = [[entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()] for state in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert one["progress"] == two["progress"]
    assert one["keeper"] == two["keeper"]


@pytest.mark.parametrize(
    ("method", "call", "every"),
    [
        ("training_step", 1, 1),  # before anything was saved
        ("training_step", 3, 1),
        ("training_step", 4, 3),  # between two states: a step is done again
        ("training_step", 6, 1),  # in the second epoch
        ("training_step", 7, 0),  # states at the ends of epochs alone
        ("validation_step", 1, 1),
        ("validation_step", 3, 2),
    ],
)
def test_killed_and_resumed(method, call, every, recipe, photos, whole, tmp_path, monkeypatch):
    settings = Settings(accelerator="cpu", checkpoint_every=every)
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, method, call)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", settings)
    torch.manual_seed(call)  # what the generators hold at the start must not matter
    np.random.seed(call)  # noqa: NPY002
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=every, resume=True))
    assert_same_run(tmp_path / "run", whole[0])


def test_killed_and_resumed_with_workers(recipe, photos, whole, tmp_path, monkeypatch):
    """Samples are read elsewhere: the main process must draw (dropout, mixup) as its step does all the same."""
    settings = Settings(accelerator="cpu", checkpoint_every=1, workers=1)
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, "training_step", 3)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", settings)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    train(recipe, photos, tmp_path / "run", replace(settings, resume=True))
    assert_same_run(tmp_path / "run", whole[0])


def test_killed_while_writing_a_state(recipe, photos, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash_at(patch, run_folder.torch, "save", 3)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=1))
    (tmp_path / "run" / ".last.ckpt.x1y2.ckpt").write_bytes(b"left by a kill")
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=1, resume=True))
    assert_same_run(tmp_path / "run", whole[0])
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize(
    "overrides", [["accumulate=2", "clip_grad=1"], ["precision=bf16-mixed"], ["optimizer.name=adamw"]]
)
def test_other_recipes_resume_exactly_too(overrides, recipe_path, photos, tmp_path, monkeypatch):
    recipe = load_recipe(recipe_path, overrides)
    train(recipe, photos, tmp_path / "whole", Settings(accelerator="cpu"))
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, "training_step", 6 * recipe.accumulate)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=2))
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=2, resume=True))
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(tmp_path / "run" / name, tmp_path / "whole" / name)


def test_the_number_of_workers_does_not_matter(recipe, photos, whole, tmp_path):
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", workers=2))
    assert_same_weights(tmp_path / "run" / "last.safetensors", whole[0] / "last.safetensors")


@pytest.mark.parametrize("name", ["training_step", "validation_step"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_the_run(number, name, recipe, photos, whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, name, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match="go on with --resume") as stopped:
            train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu"))
    assert stopped.value.code == 128 + number
    assert (tmp_path / "run" / "last.ckpt").exists()
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", resume=True))
    assert_same_run(tmp_path / "run", whole[0])
    assert "stopping after this step" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_by_the_system(recipe_path, photos, tmp_path):
    """The real command line, killed with signal 9 at whatever it is doing when two rows are logged."""

    def command(name: str, *extra: str) -> list[str]:
        arguments = ["train", recipe_path, "--data", photos, "-o", tmp_path / name, "epochs=6", "ema=null", *extra]
        return [
            sys.executable,
            "-m",
            "elastic_cnn",
            *map(str, arguments),
            "--accelerator",
            "cpu",
            "--checkpoint-every",
            "1",
        ]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command("killed", "--workers", "0"), env=environment)
    log = tmp_path / "killed" / "train.csv"
    while running.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
        time.sleep(0.002)
    assert running.poll() is None, "ended before it could be killed"
    running.kill()
    running.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    subprocess.run(command("killed", "--workers", "1", "--resume"), env=environment, check=True, timeout=120)
    subprocess.run(command("whole", "--workers", "0"), env=environment, check=True, timeout=120)
    for name in ("last.safetensors", "best.safetensors"):
        assert_same_weights(tmp_path / "killed" / name, tmp_path / "whole" / name)
    assert rows(log) == rows(tmp_path / "whole" / "train.csv")
    assert len(rows(log)) == 12


def test_a_damaged_state_gives_way_to_the_one_before(recipe, photos, whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, "training_step", 6)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=1))
    state = tmp_path / "run" / "last.ckpt"
    state.write_bytes(state.read_bytes()[:-1000])
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=1, resume=True))
    assert "last.ckpt is damaged" in capsys.readouterr().err
    assert_same_run(tmp_path / "run", whole[0])


def test_two_damaged_states_are_an_error(recipe, photos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, "training_step", 6)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", checkpoint_every=1))
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / "run" / name).write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"no whole state .*last\.ckpt is damaged"):
        train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", resume=True))


def test_a_kill_between_the_two_names_of_a_state_leaves_no_third_one(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    folder.save_state({"step": 1})
    os.link(folder.last_ckpt, folder.previous_ckpt)  # killed after the older name moved on, before the newer one did
    folder.save_state({"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert torch.load(folder.last_ckpt, weights_only=True)["step"] == 2
    assert torch.load(folder.previous_ckpt, weights_only=True)["step"] == 1


def test_a_reader_that_dies_while_a_state_is_written_is_not_called_the_disks_fault(tmp_path, monkeypatch):
    def killed(*_):
        try:
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
        finally:
            raise RuntimeError("unexpected pos 34688 vs 34584")  # the half-written archive, as it is closed

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(RuntimeError, match="unexpected pos") as caught:
        run_folder.RunFolder(tmp_path).save_state({"step": 1})
    assert "a process that reads images ended (DataLoader worker" in str(explain(caught.value, Recipe(), processes=1))
    assert list(tmp_path.iterdir()) == []
