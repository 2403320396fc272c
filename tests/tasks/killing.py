"""Kills at a chosen call, and logs to compare."""

import csv
from pathlib import Path


class Killed(BaseException):
    """Stands for a kill: nothing of the program catches it."""


def crash_at(monkeypatch, target, method, call, action=None):
    """The `call`th call of `method` (from 1) raises `Killed`, or acts, before it does anything."""
    original, calls = getattr(target, method), iter(range(1, 10_000))

    def wrapped(*args, **kwargs):
        if next(calls) == call:
            if action is None:
                raise Killed
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(target, method, wrapped)


def rows(path: Path) -> list[dict[str, str]]:
    """A log without its column of speeds."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "images_per_s"} for row in csv.DictReader(file)]
