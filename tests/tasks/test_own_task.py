"""A fourth task, told in one file (`brightness.py`): trained, resumed, evaluated, exported, explored by the package."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness import TASK, Brightness
from PIL import Image

from elastic_cnn.cli import main
from elastic_cnn.export.load import load_exported
from elastic_cnn.policy.table import read_policy
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.spec import TaskSpec, register_task, task_names, task_spec
from elastic_cnn.zoo.checkpoint import NetworkCard, load_checkpoint

RECIPE = """\
task: brightness
network: resnext_small_elastic
network_kwargs: {channels: [8, 8, 8, 8], layers: [2, 1, 1, 1]}
image_size: 32
epochs: 6
batch_size: 8
optimizer: {name: adamw, lr: 0.01, momentum: 0.9}
options: {beta: 0.2}
"""
QUIET = ["--workers", "0", "--no-progress"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("levels"), np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 10)):
        (root / split).mkdir()
        for number in range(count):
            level = round(float(rng.uniform(0.1, 0.9)), 2)
            pixels = np.clip(255 * level + rng.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / split / f"{level:.2f}_{number}.png")
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def run(place) -> Path:
    out = place / "run"
    assert main(["train", str(place / "recipe.yaml"), "--data", str(place), "-o", str(out), *QUIET]) == 0
    return out


def test_it_learns_and_the_command_line_knows_it(run, place, tmp_path, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["task"], summary["metric"]) == ("brightness", "mae")
    assert summary["best"] < 0.15  # the mean alone is off by 0.2
    out = tmp_path / "results.json"
    assert main(["eval", str(run), "--data", str(place), "--json", str(out), *QUIET]) == 0
    results = json.loads(out.read_text())
    network, card = load_checkpoint(run)
    _, samples = task_spec(card.task).code("build_test")(network, card, str(place), "val", None)
    with torch.no_grad():
        errors = [abs(float(network(samples[i]["image"][None])[0, 0]) - samples[i]["target"]) for i in range(10)]
    assert results["mae"] == pytest.approx(np.mean(errors), abs=1e-5)
    told = capsys.readouterr().out
    assert told.count("mae") == 1
    assert f"mae {results['mae']:.4f}" in told
    assert main(["stress", str(run), "--data", str(place), "--sizes", "24,32", *QUIET]) == 0
    assert "mean absolute error" in capsys.readouterr().out


def test_a_headline_of_its_own_tells_what_it_says_it_tells(run, place, monkeypatch, capsys):
    """Whatever its words are: one that rounds is not taken for silence, and one that only looks so not for a number."""
    command = ["eval", str(run), "--data", str(place), *QUIET]
    monkeypatch.setattr(Brightness, "headline", lambda self, results: f"off by {results['mae']:.1f}")
    monkeypatch.setattr(Brightness, "told", ("mae",))
    assert main(command) == 0
    assert "mae" not in capsys.readouterr().out
    monkeypatch.setattr(Brightness, "headline", lambda self, results: f"not the mae {results['mae']:.4f}")
    monkeypatch.setattr(Brightness, "told", ())
    assert main(command) == 0
    assert "  mae: " in capsys.readouterr().out


def test_it_is_exported(run, tmp_path, capsys):
    file = tmp_path / "net.pt2"
    assert main(["export", str(run), "-o", str(file), "--fixed-size"]) == 0
    compute, card = load_exported(file)
    assert card.task == "brightness"
    network, _ = load_checkpoint(run)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(compute(images), network(images), rtol=1e-3, atol=1e-4)
    assert main(["export", str(run), "-o", str(tmp_path / "t.pt2"), "--test", str(tmp_path)]) == 2
    assert "top-1 is measured for classification; this checkpoint is for brightness" in capsys.readouterr().err


def test_it_is_explored(run, place, tmp_path):
    out = tmp_path / "policy"
    command = ["policy", str(run), "--data", str(place), "-o", str(out), "--device", "cpu", "--no-figures", *QUIET]
    assert main(command) == 0
    table = read_policy(out)
    assert table.column("label") == [f"{float(path[4:8]):.1f}" for path in table.column("path")]
    assert all(0 <= float(answer) <= 1.2 for answer in table.column("prediction"))
    assert main(["explore", str(out), "-o", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "index.html").is_file()
    assert main(["predict", str(run), str(next((place / "val").iterdir()))]) == 0


STUDY = """\
title: levels
data: {kind: levels, folder: ., train: 16}
recipe: {recipe: RECIPE, overrides: [epochs=2]}
seeds: [0]
networks:
  base: {network: resnext_small}
  elastic: {network: resnext_small_elastic}
metric: mae
lower_is_better: true
comparisons:
  - {network: elastic, against: base}
"""


def test_it_is_studied(place, tmp_path):
    study = tmp_path / "levels.yaml"
    study.write_text(STUDY.replace("RECIPE", str(place / "recipe.yaml")))
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    command = ["study", str(study), *folders, "--data", str(place), "--accelerator", "cpu", "--no-progress"]
    assert main(command) == 0
    for name in ("base", "elastic"):
        record = json.loads((tmp_path / "results" / "levels" / f"{name}-seed0.json").read_text())
        [weights] = (tmp_path / "work" / "levels").glob(f"{name}-seed0-*/last.safetensors")
        network, card = load_checkpoint(weights)
        _, samples = task_spec(card.task).code("build_test")(network, card, str(place), "val", None)
        with torch.no_grad():
            errors = [abs(float(network(samples[i]["image"][None])[0, 0]) - samples[i]["target"]) for i in range(10)]
        assert record["values"]["mae"] == pytest.approx(np.mean(errors), abs=2e-3)  # pictures in memory have 8 bits
    assert main(["study", "report", str(study), *folders[:2]]) == 0


def test_it_has_no_teacher(run, place, tmp_path, capsys):
    """A loss between class probabilities would be zero for one number, and nothing would be learnt of it."""
    words = ["train", str(place / "recipe.yaml"), "--data", str(place), "-o", str(tmp_path / "run"), f"teacher={run}"]
    assert main([*words, *QUIET]) == 2
    assert "the task brightness says no loss between two networks' answers" in capsys.readouterr().err


def test_names_are_known_once(place):
    assert task_names() == ["classification", "multilabel", "segmentation", "brightness"]
    assert register_task(TASK) is TASK
    with pytest.raises(ValueError, match="a task named 'brightness' is known already"):
        register_task(replace(TASK, pipeline="another"))
    message = (
        r"unknown task 'counting'; choose from classification, .*\(for your own, import the file .*, or install it"
    )
    for make in (lambda: Recipe(task="counting"), lambda: NetworkCard("resnet18", task="counting")):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match=r"unknown key 'options\.gamma'"):
        load_recipe(place / "recipe.yaml", ["options.gamma=1"])


def test_installed_packages_bring_tasks_to_the_command(tmp_path):
    """In a process that imports no file of theirs; a package that is broken is named."""
    made = tmp_path / "installed"
    info = made / "counting-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[elastic_cnn.tasks]\ncounting = counting_task\n")
    task = "from elastic_cnn.tasks.spec import TaskSpec, register_task\n"
    task += "register_task(TaskSpec('counting', options='a:b', build='a:b', build_test='a:b', activation='nothing'))\n"
    code = (
        "from elastic_cnn.tasks.spec import task_names, task_spec; print(task_spec('counting').name, task_names()[-1])"
    )
    for text, words in (
        (task, "counting counting"),
        ("import nothing_of_this_name", "the task counting (counting_task)"),
    ):
        (made / "counting_task.py").write_text(text)
        command, places = [sys.executable, "-B", "-c", code], os.pathsep.join([str(made), *sys.path])
        environment = {**os.environ, "PYTHONPATH": places}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert words in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["classification", "multilabel", "segmentation"])
def test_code_told_by_name_is_there(name):
    spec: TaskSpec = task_spec(name)
    for field in ("options", "build", "build_test", "probabilities", "answer", "agreement"):
        assert callable(spec.code(field))
    assert spec.photos is None or callable(spec.code("photos"))
