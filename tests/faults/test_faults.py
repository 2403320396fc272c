"""The short version of `make faults`: a few kills and one fault of each kind that needs no right of its own."""

import json
import os
import random

import pytest
from fault_kills import kill_and_resume, loop_seconds
from fault_machine import disk_full, file_limit, reader_killed
from fault_ranks import rank_killed, run_pair_forked
from fault_world import World

from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    return World.make(tmp_path_factory.mktemp("faults"), forks=True)


@pytest.fixture(scope="module")
def whole(world):
    """A run that nothing interrupted, and how long it trained."""
    out = world.root / "whole"
    return out, loop_seconds(world, out)


def test_kills_at_random_moments(world, whole):
    found = kill_and_resume(world, *whole, 4, random.Random(1))
    assert found.count >= 4
    assert found.lost == []


@pytest.mark.parametrize("fault", [disk_full, file_limit, reader_killed])
def test_faults_of_the_machine(fault, world, whole):
    found = fault(world, whole[0], random.Random(1), 1)
    if found.skipped:
        pytest.skip(found.skipped)
    assert found.lost == []
    assert found.said.startswith("elastic: error: ")


def test_a_killed_process_of_two_and_a_restart_by_torchrun(world):
    """Equal to the bit for the same number of processes."""
    pair = world.root / "pair"
    assert run_pair_forked(world, pair) == [0, 0]
    counted = json.loads((pair / "summary.json").read_text())["last_results"]
    alone = evaluate(pair / "last.safetensors", world.root / "photos", settings=Settings(accelerator="cpu"))
    assert (alone["top1"], alone["top5"]) == (counted["top1"], counted["top5"])  # counts of two processes, merged
    assert alone["loss"] == pytest.approx(counted["loss"], rel=1e-5)
    found = rank_killed(world, pair, random.Random(1), 1, restarts=2)
    assert found.lost == []
    assert "exitcode: -9" in found.said
