"""Where commands run: few files allowed, no standard output, no GPU, names that a terminal must not obey."""

import os
import resource
import subprocess
import sys

import pytest
import torch
from bad_runs import Shell
from PIL import Image
from test_bad_pictures import checkpoint_of

from elastic_cnn.cli import main
from elastic_cnn.measure.tables import text_table
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.weights import WeightsReport

HOSTILE = ("\x1b[31mred\x1b[0m", "new\nline", "tab\tx", "\u0643\u0644\u0628", "\U0001f436")


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


def test_a_training_with_few_files_allowed_and_no_standard_output(tiny, tmp_path):
    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        os.close(1)

    words = ["train", str(tiny / "tiny.yaml"), "--data", str(tiny / "photos"), "-o", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "elastic_cnn", *words, "--workers", "2", "--no-progress"],
        preexec_fn=narrow,
        stderr=subprocess.PIPE,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_none_is_no_fault(name, tiny, tmp_path, monkeypatch):
    net = checkpoint_of(tmp_path / "net.safetensors", ("dark", "light"))
    monkeypatch.setattr(sys, name, None)
    try:
        assert main(["predict", str(net), str(tiny / "photos" / "val" / "dark")]) == 0
        assert main(["predict", str(net), "nowhere.png"]) == 2
    finally:
        getattr(sys, name).close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny, tmp_path, shell):
    words = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", tmp_path / "run", "--accelerator", "gpu")
    shell.refuses(*words, named="gpu")


def test_names_that_a_terminal_must_not_obey(tmp_path, shell):
    for name in HOSTILE:
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "data" / "val" / name / f"{name}.png")
    net = checkpoint_of(tmp_path / "net.safetensors", HOSTILE)
    common = ("--data", tmp_path / "data", "--workers", "0", "--no-progress")
    assert shell.run("eval", net, *common, "-o", tmp_path / "report") == 0
    assert r"\x1b[31mred\x1b[0m" in shell.out
    assert r"new\nline" in shell.out
    assert "\x1b" not in shell.out + shell.err
    assert "\t" not in shell.out + shell.err


def test_lines_tables_and_warnings_show_what_terminals_would_obey(capsys):
    Console(False).line("a\x1b[2J\nb")
    Console(False).warn("c\x1b[2J")
    assert capsys.readouterr() == ("a\\x1b[2J\nb\n", "elastic: warning: c\\x1b[2J\n")
    assert text_table(["x"], [["\x1b[2J"], ["a\nb"]]).splitlines()[2:] == [r"\x1b[2J", r"a\nb"]
    assert "\x1b" not in str(WeightsReport("w.pth", (), (), (), ("fc\x1b[2J",)))
