"""`elastic benchmark` on unknown networks, senseless figures and places to write: one line, before anything starts."""

from pathlib import Path

import pytest
import torch
from bad_runs import Shell

from elastic_cnn.analysis.benchmark import pool
from elastic_cnn.zoo.checkpoint import NetworkCard, save_checkpoint

KWARGS = {"num_classes": 2, "stem_width": 8, "channels": [8, 8, 16, 16]}
CARD = NetworkCard("resnet10t", KWARGS, "classification", ("a", "b"))
SMALL = ("--forms", "eager", "--batch-sizes", "1", "--threads", "1", "--size", "32", "--rounds", "2")


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return save_checkpoint(tmp_path_factory.mktemp("bench") / "net.safetensors", CARD.build(), CARD)


@pytest.fixture
def no_process(monkeypatch) -> None:
    """Nothing may be started: what is wrong must be known before."""

    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(pool.Worker, "__init__", started)


# words in place of NETWORK and after it -> (what the line names, what it says)
NETWORKS = [
    (["resnet5"], "'resnet5'", "did you mean resnet50"),
    (["nonsense"], "'nonsense'", "unknown network"),
    (["resnet10t", "--against", "resnext_smal"], "'resnext_smal'", "did you mean resnext_small"),
    (["{tmp}/gone.safetensors"], "{tmp}/gone.safetensors", "no checkpoint at"),
    (["{tmp}/gone"], "{tmp}/gone", "no checkpoint at"),
    (["{tmp}"], "{tmp}", "without best.safetensors"),
    (["{tmp}/net.pth"], "{tmp}/net.pth", "is not a .safetensors file"),
]


@pytest.mark.parametrize(("words", "named", "says"), NETWORKS)
def test_networks(words, named, says, tmp_path, shell, no_process):
    (tmp_path / "net.pth").write_bytes(b"x")
    words = [word.format(tmp=tmp_path) for word in words]
    shell.refuses("benchmark", *words, "-o", tmp_path / "out.json", named=named.format(tmp=tmp_path), says=says)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


ARGUMENTS = [
    (["--forms", "eagre"], "'eagre'", "choose from eager"),
    (["--forms", ""], "forms", "name at least one"),
    (["--forms", "eager,eager"], "eager, eager", "must be different"),
    (["--dtypes", "float31"], "'float31'", "choose from float32"),
    (["--dtypes", " , "], "dtypes", "name at least one"),
    (["--batch-sizes", "-1"], "-1", "must be at least 1"),
    (["--batch-sizes", "1,1"], "1, 1", "must be different"),
    (["--batch-sizes", "one"], "'one'", "whole numbers such as 1,8"),
    (["--batch-sizes", ""], "''", "whole numbers such as 1,8"),
    (["--batch-sizes", "0"], "nothing to measure", "give batch sizes"),
    (["--threads", "0"], "threads", "at least 1"),
    (["--size", "0"], "got 0", "the size must be at least 1"),
    (["--size", "x"], "--size", "invalid int value: 'x'"),
    (["--rounds", "1"], "224, 1 and 60", "the rounds at least 2"),
    (["--seconds", "nan"], "nan", "the seconds above 0"),
    (["--seconds", "-1"], "-1", "the seconds above 0"),
    (["--device", "cudaa"], "'cudaa'", "did you mean cuda"),
    (["-o", "{tmp}/file"], "{tmp}/file", "--overwrite"),
    (["-o", "{tmp}/file/out.json"], "{tmp}/file", "is no folder"),
    (["-o", "{tmp}/folder", "--overwrite"], "{tmp}/folder", "is a folder"),
]


@pytest.mark.parametrize(("words", "named", "says"), ARGUMENTS)
def test_arguments(words, named, says, net, tmp_path, shell, no_process):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    words = [word.format(tmp=tmp_path) for word in words]
    shell.refuses("benchmark", net, *words, named=named.format(tmp=tmp_path), says=says)
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list(tmp_path.rglob("*"))) == 2


def test_a_gpu_that_is_not_there(net, shell, monkeypatch, no_process):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shell.refuses("benchmark", net, "--device", "cuda", named="CUDA", says="leave out --device")


def errors(shell: Shell) -> list[str]:
    return [line for line in shell.err.splitlines() if line.startswith("elastic: error: ")]


def test_what_cannot_be_measured_at_all_is_an_error(net, tmp_path, shell):
    """A size beyond any memory, and a form that does not exist for the dtype; nothing is written."""
    out = tmp_path / "out.json"
    assert shell.run("benchmark", net, *SMALL, "--size", "9000000", "-o", out) == 2
    assert "nothing could be measured: " in errors(shell)[0]
    assert "memory" in errors(shell)[0]
    assert shell.run("benchmark", net, *SMALL, "--forms", "native", "--dtypes", "float16", "-o", out) == 2
    assert errors(shell) == ["elastic: error: nothing could be measured: float32 and bfloat16 on the CPU alone"]
    assert shell.run("benchmark", net, "--forms", "native", "--batch-sizes", "0", "--train-batch-sizes", "1") == 2
    assert errors(shell) == ["elastic: error: nothing could be measured: none of the forms trains"]
    assert not out.exists()


def test_a_process_that_ends_while_it_is_timed(net, shell, monkeypatch):
    """As when the system takes its memory back."""
    ask = pool.Worker.ask

    def killed(self: pool.Worker, **words: object) -> dict:
        if words["do"] == "run":
            self.process.kill()
            self.process.wait()
        return ask(self, **words)

    monkeypatch.setattr(pool.Worker, "ask", killed)
    assert shell.run("benchmark", net, *SMALL) == 2
    assert len(errors(shell)) == 1
    assert "its process ended with code -9" in errors(shell)[0]
    assert "take smaller batches" in errors(shell)[0]
