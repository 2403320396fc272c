"""Faults of the machine: a full disk, a limit on files, a disk that became read-only, a killed reader of images."""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fault_world import Process, World, differences, ended, rows, wait_for

from elastic_cnn.tasks.run_folder import read_state

PATIENCE = 120  # seconds after a fault in which a run must have ended: one that has not, hangs


@dataclass
class Fault:
    """One kind of fault. runs: how often; said: the line that the user saw; lost: what differs from the unbroken run;
    skipped: why it was not run here."""

    name: str
    runs: int = 0
    said: str = ""
    lost: list[str] = field(default_factory=list)
    skipped: str = ""

    def note(self, world: World, out: Path, code: int, words: str) -> None:
        """After the fault: the exit code is 2, the last line names the reason, and the state is whole."""
        self.runs += 1
        lines = [line for line in world.said(out).splitlines() if line.startswith("elastic: error")]
        self.said = lines[-1] if lines else ""
        if code != 2 or words not in self.said:
            self.lost.append(f"{out.name}: exit code {code}, said {world.said(out)[-300:]!r}")
        if "Traceback" in world.said(out):
            self.lost.append(f"{out.name}: a traceback")
        try:
            read_state(out / "last.ckpt")
        except ValueError as error:
            self.lost.append(f"{out.name}: {error}")

    def resumed(self, world: World, out: Path, whole: Path) -> None:
        """The fault is mended; the run goes on and must end as the unbroken one."""
        if code := world.run(out, "--resume"):
            self.lost.append(f"{out.name}: the resumed run ended with {code}")
        else:
            self.lost += [f"{out.name}: {what}" for what in differences(out, whole)]


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[bool]:
    """A file system of its own at `path`; False where this machine does not let us mount one."""
    path.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path, leave: int) -> None:
    """A file that takes the whole disk but for `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            os.ftruncate(file.fileno(), max(0, file.tell() - leave))


def disk_full(world: World, whole: Path, rng: random.Random, count: int) -> Fault:
    """The disk fills while a run trains, to the last byte or to less than a state; then there is room again."""
    fault = Fault("disk full")
    with small_disk(world.root / "disk", "8m") as mounted:
        if not mounted:
            fault.skipped = "no right to mount a small file system"
            return fault
        for number in range(count):
            out = world.root / "disk" / f"full{number}"
            filler = world.root / "disk" / "filler"
            with ended(world.start(out)) as process:
                _wait_for_rows(world, out, process, rng.randrange(1, 8))
                fill(filler, rng.choice((0, 0, 4096, 20_000)))
                code = process.wait(PATIENCE)
            filler.unlink()
            fault.note(world, out, code, "No space left")
            fault.resumed(world, out, whole)
            shutil.rmtree(out)  # the disk is small
    return fault


def file_limit(world: World, whole: Path, rng: random.Random, count: int) -> Fault:
    """A quota on the size of files, set while a run trains; no right is needed for this one."""
    fault = Fault("file size limit")
    for number in range(count):
        out = world.root / f"limit{number}"
        with ended(world.start(out)) as process:
            _wait_for_rows(world, out, process, rng.randrange(1, 8))
            printed = world.log(out).stat().st_size  # the limit holds for the log as well: it must take the message
            limit = max(printed + 1000, rng.choice((0, 2000, 60_000)))
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            code = process.wait(PATIENCE)
        fault.note(world, out, code, "File too large")
        fault.resumed(world, out, whole)
    return fault


def read_only(world: World, whole: Path, rng: random.Random, count: int) -> Fault:
    """The disk of a killed run comes back read-only: it is said at once; writable again, the run goes on."""
    fault = Fault("read-only disk")
    with small_disk(world.root / "readonly", "32m") as mounted:
        if not mounted:
            fault.skipped = "no right to mount a file system"
            return fault
        for number in range(count):
            out = world.root / "readonly" / f"run{number}"
            with ended(world.start(out)) as process:
                _wait_for_rows(world, out, process, rng.randrange(1, 8))
                process.kill()
                process.wait(PATIENCE)
            _remount(world.root / "readonly", "ro")
            code = world.run(out, "--resume", seconds=PATIENCE)
            _remount(world.root / "readonly", "rw")
            fault.note(world, out, code, "Read-only file system")
            fault.resumed(world, out, whole)
    return fault


def _remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(path)], check=True)


def reader_killed(world: World, whole: Path, rng: random.Random, count: int) -> Fault:
    """One of two processes that read images is killed, as by the system where memory runs out."""
    fault = Fault("reader of images killed")
    for number in range(count):
        out = world.root / f"reader{number}"
        with ended(world.start(out, "--workers", "2")) as process:
            _wait_for_rows(world, out, process, rng.randrange(1, 8))
            os.kill(rng.choice(children(process.pid)), signal.SIGKILL)
            code = process.wait(PATIENCE)
        fault.note(world, out, code, "a process that reads images ended")
        fault.resumed(world, out, whole)
    return fault


def children(pid: int) -> list[int]:
    """The processes that `pid` has started."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for_rows(world: World, out: Path, process: Process, count: int) -> None:
    """Until the run has logged that many rows, and saved a state."""
    if not wait_for(lambda: len(rows(out / "train.csv")) >= count and (out / "last.ckpt").exists(), process):
        raise RuntimeError(f"ended before the fault: {world.said(out)}")
