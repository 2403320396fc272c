"""What the faults happen to: tiny photos, a tiny recipe, the real command line; and how runs are compared."""

import csv
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RECIPE = """\
network: resnet10t
network_kwargs: {stem_width: 8, channels: [8, 8, 16, 16], drop_rate: 0.1}
image_size: 32
epochs: 4
batch_size: 8
accumulate: 2
optimizer: {lr: 0.05}
schedule: {name: cosine, warmup_epochs: 1}
ema: 0.9
log_every: 2
options: {mixup: 0.2, label_smoothing: 0.1, color_jitter: 0.2}
"""
STEPS = 24  # optimizer steps of the recipe on these photos
WRITTEN_AT_A_SIGNAL = """\
import faulthandler, os, signal
if "FAULT_PLACE" in os.environ:
    faulthandler.register(signal.SIGUSR1, open(os.environ["FAULT_PLACE"], "w"), all_threads=False)
"""
PLACES = (  # in a stack of calls -> what the process was doing; the first that fits
    ("save_state", "writing the state"),
    ("save_checkpoint", "writing weights"),
    ("_validate", "validation"),
    ("_log_step", "logging"),
    ("_train_epoch", "training step"),
    ("_restore", "reading the state"),
)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["elastic_cnn.cli", "elastic_cnn.tasks.training", "elastic_cnn.zoo"])


class Forked:
    """A function in a process of its own that ends with its exit code; used like `subprocess.Popen`.

    It begins as a copy of a server that has loaded the libraries and done nothing else, so that no thread, lock or
    state of this process goes with it.
    """

    def __init__(self, function: Callable[..., int], *arguments: Any) -> None:
        self.process = FORKS.Process(target=_end_with, args=(function, *arguments))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float = 300) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"process {self.pid} has not ended after {timeout} s")
        return self.process.exitcode

    def kill(self) -> None:
        """SIGKILL; nothing where it has ended."""
        with suppress(ProcessLookupError):
            self.process.kill()


def _end_with(function: Callable[..., int], *arguments: Any) -> None:
    os.setsid()
    torch.set_num_threads(1)  # as the others: waiting for each other, threads of tiny networks take all the time
    multiprocessing.set_start_method("fork", force=True)  # for its readers of images, as where a user starts it
    sys.exit(function(*arguments))


Process = subprocess.Popen[str] | Forked


@dataclass(frozen=True)
class World:
    """A folder with `photos/` and `tiny.yaml`; runs lie beside them.

    forks: commands begin with all libraries loaded (`Forked`) and run `elastic_cnn.cli.main`: that saves the seconds
    that a start takes. Else they are started as a user does.
    """

    root: Path
    forks: bool = False

    @classmethod
    def make(cls, root: Path, forks: bool = False) -> "World":
        """48 photos to train on and 24 to test on, in 3 classes; the class is the brightest channel."""
        rng = np.random.default_rng(0)
        for split, count in (("train", 16), ("val", 8)):
            for channel, name in enumerate(("red", "green", "blue")):
                folder = root / "photos" / split / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
                    pixels[..., channel] += 120
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        (root / "tiny.yaml").write_text(RECIPE)
        (root / "site").mkdir()
        (root / "site" / "sitecustomize.py").write_text(WRITTEN_AT_A_SIGNAL)
        return cls(root, forks)

    def arguments(self, out: Path, *extra: str) -> list[str]:
        """Of `elastic`: train the tiny recipe into `out`, a state after every step."""
        return [
            *("train", str(self.root / "tiny.yaml"), "--data", str(self.root / "photos"), "-o", str(out)),
            *("--accelerator", "cpu", "--no-progress", "--checkpoint-every", "1", "--workers", "0", *extra),
        ]

    def start(self, out: Path, *extra: str, launcher: Sequence[str] = (), **environment: str) -> Process:
        """`elastic train` as its own process group; `launcher`: torchrun and its options."""
        if self.forks and not launcher:
            return Forked(self._main, out, extra, environment)
        program = [*launcher, "-m", "elastic_cnn"] if launcher else [sys.executable, "-m", "elastic_cnn"]
        paths = [str(self.root / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.log(out).open("a") as log:
            return subprocess.Popen(
                [*program, *self.arguments(out, *extra)],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def _main(self, out: Path, extra: Sequence[str], environment: dict[str, str]) -> int:
        """What a forked process does: output to the log, then the command."""
        from elastic_cnn.cli import main

        log = os.open(self.log(out), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        os.environ |= environment
        if "FAULT_PLACE" in environment:
            faulthandler.register(signal.SIGUSR1, open(environment["FAULT_PLACE"], "w"), all_threads=False)  # noqa: SIM115
        return main(self.arguments(out, *extra))

    def log(self, out: Path) -> Path:
        """Where everything goes that the runs into `out` print; never on the disk of a fault."""
        return self.root / f"{out.name}.log"

    def said(self, out: Path) -> str:
        return self.log(out).read_text()

    def run(
        self, out: Path, *extra: str, launcher: Sequence[str] = (), seconds: float = 300, **environment: str
    ) -> int:
        """`start`, to its end: the exit code. A process that hangs is an error."""
        with ended(self.start(out, *extra, launcher=launcher, **environment)) as process:
            return process.wait(seconds)


@contextmanager
def ended(process: Process) -> Iterator[Process]:
    """Leave no process of the group behind."""
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool], process: Process, pause: float = 0.002) -> bool:
    """Whether the condition came true before the process ended."""
    until = time.monotonic() + 300
    while process.poll() is None:
        if condition():
            return True
        if time.monotonic() > until:
            raise TimeoutError("the run neither ended nor came to where it was waited for")
        time.sleep(pause)
    return condition()


def rows(path: Path) -> list[dict[str, str]]:
    """A log without its column of speeds."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "images_per_s"} for row in csv.DictReader(file)]


def differences(out: Path, whole: Path) -> list[str]:
    """What of a run is not as in the unbroken one: weights and cards to the bit, state, logs. Empty: nothing lost."""
    found = [name for name in ("last.safetensors", "best.safetensors") if content(out / name) != content(whole / name)]
    found += [name for name in ("train.csv", "val.csv") if rows(out / name) != rows(whole / name)]
    states = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (out, whole)]
    parts = states[1].keys() - {"spent"}  # seconds: of each run its own
    found += [f"last.ckpt: {part}" for part in sorted(parts) if not same(states[0].get(part), states[1][part])]
    if leftovers := [path.name for path in out.glob(".*")]:
        found.append(f"left over: {', '.join(leftovers)}")
    return found


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, tensors within dicts and lists too."""
    if isinstance(two, torch.Tensor):
        return isinstance(one, torch.Tensor) and torch.equal(one, two)
    if isinstance(two, dict):
        return isinstance(one, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in two)
    if isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def place_of(dump: Path) -> str:
    """What the process was doing when it wrote its stack."""
    stack = dump.read_text() if dump.exists() else ""
    return next((place for word, place in PLACES if word in stack), "start, end or between")
