"""The demo's runs, each in a process of one thread, as many at a time as there are processors."""

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.demo.data import DemoData
from elastic_cnn.demo.job import DemoJob
from elastic_cnn.demo.plan import Pace, measure_pace
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.memory import KEEP_MEMORY
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.tasks.training import Interrupted, Settings, train

_data: list[DemoData] = []  # of a worker


@dataclass(frozen=True)
class Task:
    """One run: what to train, where it is written."""

    recipe: Recipe
    out: Path
    overwrite: bool


class Workers:
    """number: processes, 0 to compute in this one. Used within `with`; the data goes to each process once."""

    def __init__(self, data: DemoData, number: int) -> None:
        self.data, self.number = data, number
        self._stack = ExitStack()

    def __enter__(self) -> "Workers":
        self._pool = self._stack.enter_context(self._start())
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def pace(self, networks: list[str], recipe: Recipe) -> Pace:
        """The slowest of all processes that measure at once, as they will train at once."""
        found = [self._pool.submit(measure_pace, networks, recipe) for _ in range(max(1, self.number))]
        return max((future.result() for future in found), key=lambda pace: pace.seconds)

    def train(self, tasks: Sequence[Task], done: Callable[[int, Summary], None]) -> list[Summary]:
        """Train them all; `done` is told of each that has ended, with its place.

        Raises `Interrupted` on a signal, `ValueError` where the system ended a process.
        """
        found: dict[int, Summary] = {}
        places = {self._pool.submit(_train, task): place for place, task in enumerate(tasks)}
        try:
            for future in as_completed(places):
                summary = future.result()
                if summary is None:
                    raise Interrupted("interrupted", 130)
                found[places[future]] = summary
                done(places[future], summary)
        except BrokenProcessPool as error:
            raise ValueError(
                f"one of the {self.number} processes that train was ended from outside, perhaps for want of memory: "
                "ask for fewer, --processes 1"
            ) from error
        return [found[place] for place in range(len(tasks))]

    @contextmanager
    def _start(self) -> Iterator[Any]:
        if self.number == 0:
            _data[:] = [self.data]
            yield _Here()
            _data.clear()
            return
        with tempfile.TemporaryDirectory(prefix="elastic-demo-") as folder, _environment(KEEP_MEMORY):
            file = Path(folder) / "data.pt"
            torch.save(self.data, file)
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self.number, context, _begin, (str(file), os.getpid()))
            try:
                yield pool
            finally:
                pool.shutdown(cancel_futures=True)


class _Here:
    """A pool that computes at once, in this process."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def _begin(file: str, parent: int) -> None:
    """Of a new process: one thread, its own copy of the data, and an end when the demo has ended."""
    torch.set_num_threads(1)
    _data[:] = [torch.load(file, weights_only=False)]  # this very demo wrote it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(task: Task) -> Summary | None:
    """None where a signal ended it."""
    settings = Settings(accelerator="cpu", overwrite=task.overwrite, progress=False)
    console = Console(False)
    console.shown = False
    data = _data[0]
    try:
        return train(task.recipe, data.name, task.out, settings, build=DemoJob(data).build, console=console)
    except Interrupted:
        return None


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """These variables, for processes that are started meanwhile; what is set already stays."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
