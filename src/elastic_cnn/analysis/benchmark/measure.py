"""`benchmark`: time a network, and its base, in every form, batch size, dtype and number of threads asked for."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from elastic_cnn.analysis.benchmark.forms import DTYPES, INFERENCE, TRAINING, Subject, build, check_source
from elastic_cnn.analysis.benchmark.pool import Pool, Worker, call
from elastic_cnn.analysis.benchmark.roofline import Peaks, bound, measure_peaks
from elastic_cnn.measure.machine import describe_machine
from elastic_cnn.measure.medians import median_of, ratio_of
from elastic_cnn.measure.turns import in_turns

WARM_UP = 2


@dataclass(frozen=True)
class Request:
    """What to measure. networks: the network, and the base where there is one; names, checkpoints or run folders.

    forms: of `INFERENCE`. train_batches: batch sizes of training steps, in the forms that train. memory: also the most
    memory that a call holds. roofline: also the processor's peaks, and what part of them is reached. rounds, seconds:
    most rounds and time to spend on each set of figures.
    """

    network: str
    against: str | None = None
    forms: tuple[str, ...] = tuple(INFERENCE)
    batches: tuple[int, ...] = (1, 8)
    train_batches: tuple[int, ...] = ()
    size: int = 224
    dtypes: tuple[str, ...] = ("float32",)
    threads: tuple[int, ...] = (1,)
    device: str = "cpu"
    memory: bool = False
    roofline: bool = False
    rounds: int = 15
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name, known in (("forms", INFERENCE), ("dtypes", DTYPES), ("device", ("cpu", "cuda"))):
            given = getattr(self, name)
            for value in (given,) if isinstance(given, str) else given:
                if value not in known:
                    raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(known)}")
            if not given:
                raise ValueError(f"{name}: name at least one of {', '.join(known)}")
        for name in ("forms", "dtypes", "batches", "train_batches", "threads"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must be different, got {', '.join(map(str, getattr(self, name)))}")
        for name in ("batches", "train_batches", "threads"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.threads:
            raise ValueError("threads must be at least 1")
        if self.size < 1 or self.rounds < 2 or not self.seconds > 0:
            raise ValueError(
                "the size must be at least 1, the rounds at least 2, the seconds above 0; got "
                f"{self.size}, {self.rounds} and {self.seconds}"
            )
        if not self.batches and not self.train_batches:
            raise ValueError("nothing to measure: give batch sizes for inference or training")

    @property
    def networks(self) -> tuple[str, ...]:
        return (self.network,) if self.against is None else (self.network, self.against)

    @property
    def jobs(self) -> list[tuple[str, int]]:
        """(job, batch size)."""
        return [("inference", n) for n in self.batches] + [("training", n) for n in self.train_batches]


@dataclass
class Cell:
    """One set of figures, whose members ran in turns: same job, batch, dtype and threads."""

    job: str
    batch: int
    dtype: str
    threads: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    unavailable: list[dict[str, str]] = field(default_factory=list)


def benchmark(request: Request, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure all that is asked for. Returns JSON values: `machine`, `request`, `peaks`, `cells`.

    A row: network, form, ms and its interval, images_per_s, memory (bytes) or None, and with a base `ratios`:
    {"FORM": median and interval of this row's time over the base's in FORM}. Forms that cannot be had stand under
    `unavailable` with the reason. `ValueError` for unknown networks and broken checkpoints.
    """
    for network in request.networks:
        check_source(network)
    cells = []
    peaks = {threads: measure_peaks(threads) for threads in request.threads} if request.roofline else {}
    for job, batch, dtype, threads in _cells(request):
        cell = Cell(job, batch, dtype, threads)
        _measure(request, cell, progress)
        if job == "inference" and threads in peaks and peaks[threads].of(dtype):
            _add_roofline(request, cell, peaks[threads])
        cells.append(asdict(cell))
    found = [asdict(peak) for peak in peaks.values()]
    return {"machine": describe_machine(), "request": asdict(request), "peaks": found, "cells": cells}


def _add_roofline(request: Request, cell: Cell, peaks: Peaks) -> None:
    """To each row: `of_peak`, operations a second over the peak; `bound_ms`, the least time layer by layer."""
    bounds = {name: bound(build(name), cell.batch, request.size, peaks, cell.dtype) for name in request.networks}
    for row in cell.rows:
        least = bounds[row["network"]]
        row["of_peak"] = round(1e3 * least.flops / row["ms"]["median"] / peaks.of(cell.dtype), 4)
        row["bound_ms"] = round(1e3 * least.seconds, 3)


def _cells(request: Request) -> Iterator[tuple[str, int, str, int]]:
    for (job, batch), dtype, threads in itertools.product(request.jobs, request.dtypes, request.threads):
        yield job, batch, dtype, threads


def _subjects(request: Request, cell: Cell) -> list[Subject]:
    forms = [form for form in request.forms if cell.job == "inference" or form in TRAINING]
    return [
        Subject(network, form, cell.job, cell.batch, request.size, cell.dtype, cell.threads, request.device)
        for form in forms
        for network in request.networks
    ]


def _measure(request: Request, cell: Cell, progress: Callable[[str], None]) -> None:
    title = f"{cell.job}, batch {cell.batch}, {cell.dtype}, {cell.threads} threads"
    ready: list[tuple[Subject, Worker, int]] = []
    with Pool(cell.threads) as pool:
        for subject in _subjects(request, cell):
            progress(f"{title}: preparing {subject.network}, {subject.form}")
            worker, answer = pool.prepare(subject)
            if worker is not None and "index" in answer:
                ready.append((subject, worker, answer["index"]))
            else:
                cell.unavailable.append(
                    {"network": subject.network, "form": subject.form, "reason": answer["unavailable"]}
                )
        progress(f"{title}: timing")
        timers = [partial(call, worker, index) for _, worker, index in ready]
        times = in_turns(timers, request.rounds, warm_up=WARM_UP, seconds=request.seconds, reverse=True)
    held = [_memory(subject) if request.memory else None for subject, _, _ in ready]
    bases = {s.form: t for (s, _, _), t in zip(ready, times, strict=True) if s.network == request.against}
    for (subject, _, _), seconds, memory in zip(ready, times, held, strict=True):
        row = _row(subject, seconds, memory)
        if request.against is not None:
            row["ratios"] = {form: asdict(ratio_of(seconds, base)) for form, base in bases.items()}
        cell.rows.append(row)


def _row(subject: Subject, seconds: list[float], memory: int | None) -> dict[str, Any]:
    ms = median_of([1e3 * value for value in seconds])
    return {
        "network": subject.network,
        "form": subject.form,
        "ms": asdict(ms.rounded(3)),
        "images_per_s": round(1e3 * subject.batch / ms.median, 2),
        "rounds": len(seconds),
        "memory": memory,
    }


def _memory(subject: Subject) -> int | None:
    """The most memory that one call holds, in a process of its own."""
    with Pool(subject.threads) as pool:
        worker, answer = pool.prepare(subject, alone=True)
        return worker.ask(do="memory", index=answer["index"]).get("bytes") if worker and "index" in answer else None
