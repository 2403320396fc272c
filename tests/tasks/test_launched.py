"""Runs that torchrun or SLURM start: how many processes take part, restarts, failures told in words."""

import json
import multiprocessing

import pytest
import torch

from elastic_cnn.cli import main
from elastic_cnn.cli.train import was_restarted
from elastic_cnn.tasks.failures import explain
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.restarts import advice, attempt
from elastic_cnn.tasks.settings import Settings, launched
from elastic_cnn.tasks.training import make_fabric

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}


def test_processes_are_those_of_the_launcher():
    assert launched({}) is None
    assert launched(TORCHRUN) == (2, 3)
    assert launched(SLURM) == (4, 2)
    assert launched({**SLURM, "SLURM_NTASKS": "1"}) is None
    assert launched({"SLURM_NTASKS": "8"}) is None  # in the script, before srun
    with pytest.raises(ValueError, match="not the same number on each machine"):
        launched({**SLURM, "SLURM_NTASKS": "7"})


def test_settings_count_them(monkeypatch):
    assert Settings(devices=2, nodes=3).processes == 6
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert Settings().processes == 6


def test_every_attempt_has_names_of_its_own_in_torchruns_store():
    one = {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_MAX_RESTARTS": "3"}
    assert attempt({}) is None
    assert attempt(one) != attempt({**one, "TORCHELASTIC_RESTART_COUNT": "1"})
    assert attempt({**one, "TORCHELASTIC_USE_AGENT_STORE": "False"}) is None
    several = {**one, "GROUP_WORLD_SIZE": "2"}
    assert attempt(several) is None  # each machine counts its own restarts
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in advice(several)
    for quiet in ({}, one, {**several, "TORCHELASTIC_USE_AGENT_STORE": "False"}):
        assert advice(quiet) == ""


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restart_resumes_by_itself(name, monkeypatch, tiny_run):
    monkeypatch.setenv(name, "0")
    assert not was_restarted()
    assert main([*tiny_run, "--no-progress"]) == 0
    assert main(tiny_run) == 2  # holds a run already
    monkeypatch.setenv(name, "2")
    assert was_restarted()
    assert main([*tiny_run, "--overwrite"]) == 0


@pytest.fixture
def tiny_run(photos, recipe_path, tmp_path) -> list[str]:
    arguments = ["train", recipe_path, "--data", photos, "-o", tmp_path / "run", "--workers", "0", "epochs=1"]
    return [*map(str, arguments), "--accelerator", "cpu"]


def test_a_restart_keeps_what_was_done(monkeypatch, tiny_run, capsys):
    assert main(tiny_run) == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main([*tiny_run, "--overwrite"]) == 0
    assert "has come to its end already" in capsys.readouterr().out  # not started anew


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_strategies_that_divide_the_weights_are_refused(strategy):
    with pytest.raises(ValueError, match="these networks fit on one: use ddp"):
        make_fabric(Recipe(), Settings(accelerator="cpu", strategy=strategy))


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), OSError, "--workers"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), ValueError, "accumulate=2"),
        (torch.OutOfMemoryError("CUDA out of memory"), ValueError, "lower batch_size"),
        (MemoryError(), ValueError, "out of memory"),
        (
            RuntimeError("[gloo] Connection closed by peer [::1]:5"),
            ConnectionError,
            "another process of the run is gone",
        ),
        (torch.distributed.DistBackendError("NCCL error"), ConnectionError, "another process"),
        (ValueError("Expected more than 1 value per channel when training"), ValueError, "raise batch_size"),
    ],
)
def test_failures_of_the_machine_are_told_in_words(error, kind, says):
    found = explain(error, Recipe(), processes=2)
    assert type(found) is kind
    assert says in str(found)
    assert explain(RuntimeError("a fault of ours"), Recipe(), processes=2) is None


def test_connections_concern_several_processes_alone():
    assert explain(RuntimeError("Connection closed by peer"), Recipe(), processes=1) is None


def test_the_launcher_learns_rank_and_reason(monkeypatch, tmp_path, capsys):
    report = tmp_path / "error.json"
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "TORCHELASTIC_ERROR_FILE": str(report)}.items():
        monkeypatch.setenv(name, value)
    assert main(["summary", str(tmp_path / "none.safetensors")]) == 2
    assert "elastic: error (process 1 of 4): no checkpoint at" in capsys.readouterr().err
    assert "no checkpoint at" in json.loads(report.read_text())["message"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"]


def test_a_connection_that_breaks_while_images_come_is_the_readers_end():
    """A killed reader may be noticed when its images' memory is asked for, not by the loader's own watch."""
    ours, its = multiprocessing.Pipe()
    its.close()
    with pytest.raises(EOFError) as caught:
        ours.recv()
    assert "a process that reads images ended (EOFError)" in str(explain(caught.value, Recipe(), processes=1))
    assert explain(EOFError(), Recipe(), processes=1) is None  # not from there
