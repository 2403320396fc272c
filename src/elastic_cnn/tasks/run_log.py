"""The logs of a training run: CSV files and TensorBoard events, without gaps or doubles however often it was killed."""

import csv
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write
from elastic_cnn.tasks.run_folder import RunFolder

Scalar = tuple[str, int]  # tag and step


@dataclass(frozen=True)
class Logged:
    """How far a log had come when a state was saved: its rows, and the optimizer step that none of them is beyond."""

    rows: int = 0
    step: int = 0


class RowLog:
    """A CSV file that grows by rows; cut back to what was `logged` when a run resumes.

    `lost`: how many of those rows are missing, since somebody cut or removed the file. `step`: the largest of a row.
    """

    def __init__(self, path: Path, logged: Logged = Logged()) -> None:
        self.path, self.kept = path, _read_rows(path, logged) if path.exists() else []
        self.rows, self.step, self.lost = 0, logged.step, logged.rows - len(self.kept)
        self.columns: list[str] = list(self.kept[0]) if self.kept else []
        if self.kept:
            with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                self._write(file, self.kept, header=True)
        elif path.exists():
            path.unlink()

    def append(self, row: dict[str, Any]) -> None:
        """One row, with its `step`; the first one names the columns."""
        self.step = max(self.step, row["step"])
        first = not self.columns
        if first:
            self.columns = list(row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._write(file, [row], header=first)
            file.flush()
            os.fsync(file.fileno())

    def _write(self, file: Any, rows: list[dict[str, Any]], header: bool) -> None:
        writer = csv.DictWriter(file, self.columns, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        self.rows += len(rows)


def _read_rows(path: Path, logged: Logged) -> list[dict[str, str]]:
    """The first `logged.rows` rows of a log, without what is no row of one (a line cut off, another file's)."""
    text = path.read_bytes().decode("utf-8", "replace").replace("\0", "")
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    rows = []
    with suppress(csv.Error):
        for _, row in zip(range(logged.rows), reader, strict=False):
            step = row.get("step") or ""
            if None not in row and step.isdecimal() and int(step) <= logged.step and "" not in row.values():
                rows.append(row)
    return rows


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log that is not written any more; none of a run too short for a row."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class RunLog:
    """train.csv, val.csv and TensorBoard events of a run; used by `with`.

    logged: how far each log had come at the state that a run goes on from; by default it begins anew. warn: told where
    rows of the CSV files are missing. others: Lightning's loggers, which are told the same. TensorBoard writes in a
    thread: what fails there is raised here, as `OSError`, by the next call.
    """

    NAMES = ("train", "val")

    def __init__(
        self,
        folder: RunFolder,
        logged: Mapping[str, Logged] | None = None,
        warn: Callable[[str], None] = lambda text: None,
        others: Sequence[Any] = (),
    ) -> None:
        self.folder, self.others = folder, others
        self.logged = {name: (logged or {}).get(name, Logged()) for name in self.NAMES}
        self.logs = {name: RowLog(folder.path / f"{name}.csv", self.logged[name]) for name in self.NAMES}
        for log in self.logs.values():
            if log.lost > 0:
                warn(
                    f"{log.path} lacks {log.lost} of the {log.lost + log.rows} rows that were written: it was cut or "
                    "removed; the run goes on, these rows are lost"
                )

    def rows(self) -> dict[str, int]:
        """Rows written so far, for the state."""
        return {name: log.rows for name, log in self.logs.items()}

    def steps(self) -> dict[str, int]:
        """The largest step of each log, for the state."""
        return {name: log.step for name, log in self.logs.items()}

    def append(self, name: str, epoch: int, step: int, values: dict[str, float]) -> None:
        """A row of `train` or `val`: epoch (from 1), optimizer steps done, and the values."""
        self.logs[name].append({"epoch": epoch, "step": step, **values})
        for key, value in values.items():
            with self._errors_named():
                self.events.add_scalar(f"{name}/{key}", value, step)
        for other in self.others:
            other.log_metrics({f"{name}/{key}": float(value) for key, value in values.items()}, step)

    def picture(self, path: Path, step: int) -> None:
        """Show a picture of a validation in TensorBoard too."""
        with Image.open(path) as picture, self._errors_named():
            self.events.add_image(f"val/{path.stem}", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        tensorboard = require("torch.utils.tensorboard", "train")
        self._hook, threading.excepthook = threading.excepthook, self._in_a_thread
        try:
            with self._errors_named():
                again = self._cut_events()
                last = max(logged.step for logged in self.logged.values())
                # the purge is for a TensorBoard that has been looking all the time
                self.events = tensorboard.SummaryWriter(
                    str(self.folder.tensorboard), purge_step=last + 1 if last else None
                )
                for (tag, step), (value, moment) in again.items():
                    self.events.add_scalar(tag, value, step, walltime=moment)
        except OSError:
            threading.excepthook = self._hook
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for other in self.others:
                other.finalize("failed" if kind else "success")
            with suppress(OSError) if kind else self._errors_named():  # what came first is what is told
                self.events.close()
        finally:
            threading.excepthook = self._hook

    def _cut_events(self) -> dict[Scalar, tuple[float, float | None]]:
        """Take out of the event files, in place, whatever lies beyond the state or is there twice.

        Returns {(tag, step): (value, time)} of what is to be told once more: what the CSV files have and no event tells
        (a kill may come before TensorBoard writes), and the events of files that are as new as the next one, since
        TensorBoard reads files in the order of their names, which begin with the second in which they were made.
        """
        folder, now = self.folder.tensorboard, f"events.out.tfevents.{int(time.time()):010d}"
        for leftover in folder.glob(".events.out.tfevents.*"):  # of a kill in the middle of this
            leftover.unlink()
        again: dict[Scalar, tuple[float, float | None]] = {}
        seen: set[Scalar] = set()
        for path in sorted(folder.glob("events.out.tfevents.*")):
            events = [event for event in _read_events(path) if self._stays(event, seen)]
            scalars = {
                (v.tag, event.step): (v.simple_value, event.wall_time)
                for event in events
                for v in _values(event)
                if v.HasField("simple_value")
            }
            if path.name >= now:
                again |= scalars
            if path.name >= now or not scalars:
                path.unlink()
            else:
                _write_events(path, events)
        for name, log in self.logs.items():
            for row in log.kept:
                for key in log.columns[2:]:
                    if (scalar := (f"{name}/{key}", int(row["step"]))) not in seen:
                        again[scalar] = (float(row[key]), None)
        return again

    def _stays(self, event: Any, seen: set[Scalar]) -> bool:
        """Whether an event is to stay: all but scalars beyond the state, or in `seen`, which takes up the others."""
        scalars = {(value.tag, event.step) for value in _values(event)}
        known = [self.logged.get(tag.partition("/")[0], Logged()) for tag, _ in scalars]
        if scalars & seen or any(event.step > logged.step for logged in known):
            return False
        seen |= scalars
        return True

    def _in_a_thread(self, failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"{self.folder.tensorboard} could not be written ({reason}): mend that, and go on with --resume"
            ) from error


def _values(event: Any) -> Any:
    return event.summary.value if event.HasField("summary") else ()


def _read_events(path: Path) -> list[Any]:
    """The events of a file, up to where it was cut or is damaged."""
    reading = require("tensorboard.backend.event_processing.event_file_loader", "train")
    events = []
    with suppress(Exception):  # protobuf's of broken bytes, of no common kind; what came before stays
        for event in reading.LegacyEventFileLoader(str(path)).Load():
            events.append(event)
    return events


def _write_events(path: Path, events: list[Any]) -> None:
    """Atomically, and only where anything changed."""
    writing = require("tensorboard.summary.writer.record_writer", "train")
    buffer = io.BytesIO()
    records = writing.RecordWriter(buffer)
    for event in events:
        records.write(event.SerializeToString())
    if buffer.getvalue() != path.read_bytes():
        with atomic_write(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
