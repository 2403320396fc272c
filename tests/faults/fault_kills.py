"""SIGKILL at random moments: start, kill, resume, kill again, until the end, which must be that of an unbroken run."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fault_world import STEPS, World, differences, ended, place_of, rows, wait_for

from elastic_cnn.tasks.run_folder import read_state

ROWS = STEPS // 2  # of the log, one in two steps


@dataclass
class Kills:
    """places: how many kills fell where; chains: runs that were killed and resumed to their end; lost: what differs."""

    places: Counter[str] = field(default_factory=Counter)
    chains: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.places.values())


def loop_seconds(world: World, out: Path) -> float:
    """How long the unbroken run trains, from its first step to its last file; makes that run."""
    with ended(world.start(out)) as process:
        wait_for(lambda: logs(out) > 0, process)
        began = time.monotonic()
        wait_for((out / "summary.json").exists, process)
        seconds = time.monotonic() - began
        if process.wait(300):
            raise RuntimeError(f"the unbroken run failed: {world.said(out)}")
        return seconds


def logs(out: Path) -> int:
    """How many event files a run has; a new one is made just before the first step after a start."""
    return len(list((out / "tensorboard").glob("*")))


def kill_and_resume(world: World, whole: Path, seconds: float, count: int, rng: random.Random) -> Kills:
    """At least `count` kills, in chains; each third one waits for a file that is being written.

    seconds: how long the unbroken run trains. Chains read images by 0 or 1 worker in turn.
    """
    found = Kills()
    while found.count < count:
        out = world.root / f"killed{found.chains}"
        workers = str(found.chains % 2)
        code = None
        while code is None:
            code = _until_killed(world, out, workers, seconds, rng, found)
        found.chains += 1
        if code:
            found.lost.append(f"{out.name}: ended with {code}: {world.said(out)[-300:]}")
        else:
            found.lost += [f"{out.name}: {what}" for what in differences(out, whole)]
    return found


def _until_killed(
    world: World, out: Path, workers: str, seconds: float, rng: random.Random, found: Kills
) -> int | None:
    """Start or go on with a run and kill it once; its exit code where it ended before."""
    dump = world.root / "place.txt"
    dump.unlink(missing_ok=True)
    before = logs(out)
    with ended(world.start(out, "--resume", "--workers", workers, FAULT_PLACE=str(dump))) as process:
        if wait_for(lambda: logs(out) > before, process):
            done = len(rows(out / "train.csv"))
            wanted = rng.randint(done, max(done, ROWS - 1))  # rows, not seconds: machines have other work as well
            wait_for(lambda: len(rows(out / "train.csv")) >= wanted, process, 0.0005)
            moment = time.monotonic() + rng.uniform(0, 2 * seconds / ROWS)
            wait_for(lambda: time.monotonic() >= moment, process, 0.0005)
            if found.count % 3 == 2:
                wait_for(lambda: any(out.glob(".*.ckpt.*.ckpt")), process, 0.0001)
            if process.poll() is None:
                _note_place(process.pid, dump)
                process.kill()
        if process.wait(300) not in (-signal.SIGKILL, -signal.SIGUSR1):  # the latter ends a process that is at its end
            return process.returncode
    found.places[place_of(dump)] += 1
    found.lost += _not_whole(out)
    return None


def _note_place(pid: int, dump: Path) -> None:
    """Have the process write its stack, which takes it well below a millisecond."""
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, signal.SIGUSR1)
    until = time.monotonic() + 0.05
    while time.monotonic() < until and not (dump.exists() and dump.stat().st_size):
        time.sleep(0.0001)


def _not_whole(out: Path) -> list[str]:
    """Every file that bears its final name must be whole, whatever the kill interrupted."""
    problems = []
    for name in ("last.ckpt", "previous.ckpt"):
        if (out / name).exists():
            try:
                read_state(out / name)
            except ValueError as error:
                problems.append(f"{out.name}: {error}")
    return problems
