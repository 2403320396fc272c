"""`elastic train`: what it prints and writes, and one clear line for each wrong input."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_cnn.cli import main
from elastic_cnn.tasks import training


def train(tiny: Path, out: Path, *more: str) -> int:
    arguments = ["train", str(tiny / "tiny.yaml"), "--data", str(tiny / "photos"), "-o", str(out)]
    return main([*arguments, "--accelerator", "cpu", "--workers", "0", *more])


def test_overrides_may_stand_anywhere(tiny, tmp_path, capsys):
    out = tmp_path / "run"
    before = ["train", str(tiny / "tiny.yaml"), "seed=4", "--data", str(tiny / "photos"), "optimizer.lr=0.01"]
    after = ["--network", "resnet10t", "--accelerator", "cpu", "--workers", "0", "-o", str(out), "log_every=1"]
    code = main(before + after)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert re.search(r"epoch 1/1: loss [\d.]+, top-1 error [\d.]+%", printed.out)
    told = " ".join(printed.out.split())
    assert f"in {out}: recipe.yaml, last.ckpt, " in told
    assert ", best.safetensors, " in told
    recipe = training.load_recipe(out / "recipe.yaml")
    assert (recipe.seed, recipe.optimizer.lr, recipe.log_every, recipe.network) == (4, 0.01, 1, "resnet10t")
    assert json.loads((out / "summary.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["epoch=2"], "unknown key 'epoch'; did you mean epochs"),
        (["--network", "resnet10tt"], "unknown network 'resnet10tt'; did you mean resnet10t"),
        (["batch_size=99"], "batch_size=99 exceeds the 12 training images"),
        (["accumulate=3"], "batch_size=4 cannot be divided evenly"),
        (["--resume", "--overwrite"], "exclude each other"),
        (["--devices", "0"], "devices=0 must be at least 1"),
        (["--checkpoint-every", "-1"], "checkpoint_every=-1"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["optimizer.name=adamv"], "unknown optimizer 'adamv'"),
        (["weights=nowhere.pth"], "no checkpoint at nowhere.pth"),
        (["optimizer.lr=1e30"], "the loss became"),
        (["--strategy", "magic"], "cannot run on 1 x cpu"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(more, message, tiny, tmp_path, capsys):
    assert train(tiny, tmp_path / "run", *more) == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert message in last
    assert last.startswith("elastic")
    assert "Traceback" not in error


def test_unknown_recipe_and_existing_run(tiny, tmp_path, capsys):
    assert main(["train", "imagenet_papr", "--data", "x", "-o", str(tmp_path / "a")]) == 2
    assert "did you mean imagenet_paper" in capsys.readouterr().err
    assert train(tiny, tmp_path / "run") == 0
    assert train(tiny, tmp_path / "run") == 2
    assert "holds a run already" in capsys.readouterr().err
    assert train(tiny, tmp_path / "run", "--resume") == 0
    assert train(tiny, tmp_path / "run", "--overwrite") == 0


def test_an_interrupted_run_says_how_to_go_on(tiny, tmp_path, capsys, monkeypatch):
    original = training.Loop._optimizer_step

    def step(self, parts):
        signal.raise_signal(signal.SIGTERM)
        return original(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(training.Loop, "_optimizer_step", step)
        assert train(tiny, tmp_path / "run") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the state is saved, go on with --resume" in capsys.readouterr().err
    assert train(tiny, tmp_path / "run", "--resume") == 0
    assert "going on with" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_and_test_together(tiny, tmp_path):
    """Real processes over gloo: one summary is printed, and the counts are those of one process."""
    command = [sys.executable, "-m", "elastic_cnn"]
    machine = ["--accelerator", "cpu", "--workers", "0", "--data", str(tiny / "photos")]
    out = tmp_path / "run"
    done = subprocess.run(
        [*command, "train", str(tiny / "tiny.yaml"), "-o", str(out), "--devices", "2", *machine],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": best in epoch ") == 1
    summary = json.loads((out / "summary.json").read_text())
    assert main(["eval", str(out), "--json", str(tmp_path / "one.json"), *machine]) == 0
    one = json.loads((tmp_path / "one.json").read_text())
    assert one["images"] == 4
    assert one["top1"] == summary["best_results"]["top1"]  # whole counts, equal to the last digit
    assert one["loss"] == pytest.approx(summary["best_results"]["loss"], rel=1e-5)
