"""The answers of a network on every photo of a split, as numbers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from elastic_cnn.data.listings import is_listing
from elastic_cnn.policy.photos import read_sizes
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.tasks.training import DEFAULT_SETTINGS, DEFAULT_TEST, evaluate


@dataclass(frozen=True)
class Answers:
    """What a network says of `N` photos, in the order of the split; photos that cannot be read are not among them.

    truth: (N,) numbers of classes, or (N, C) of 0 and 1 where a photo has several labels. probabilities: (N, C).
    sizes: (N,) of the photos' objects in pixels, where they are known, else NaN. results: of the task, as `evaluate`
    gives them.
    """

    paths: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    task: str
    sizes: np.ndarray
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether a photo has several labels, or none."""
        return self.truth.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """(N,): the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """(N,): whether the answer is right; with several labels, whether all are (above 0.5)."""
        if self.several:
            return np.asarray(((self.probabilities > 0.5) == (self.truth > 0.5)).all(1))
        return np.asarray(self.predicted == self.truth)

    @property
    def loss(self) -> np.ndarray:
        """(N,): cross-entropy; with several labels summed over them."""
        chance = np.clip(self.probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
        if self.several:
            return -np.where(self.truth > 0.5, np.log(chance), np.log(1 - chance)).sum(1)
        return -np.log(chance[np.arange(len(self.truth)), self.truth])


def collect_answers(
    checkpoint: str | Path,
    data: str | Path,
    split: str = "val",
    options: TestOptions = DEFAULT_TEST,
    settings: Settings = DEFAULT_SETTINGS,
    console: Console | None = None,
) -> Answers:
    """Test a checkpoint as `evaluate` does, and keep what it says of each photo.

    `ValueError` as `evaluate`, with several processes, and for a task that answers for pixels.
    """
    if settings.processes > 1:
        raise ValueError("a report is made by one process: leave --devices out")
    seen: list[tuple[list[int], np.ndarray, np.ndarray]] = []
    found: dict[str, Any] = {}

    def observe(task: str, samples: Any, batch: dict[str, Any], logits: Tensor) -> None:
        spec = task_spec(task)
        if spec.per_pixel or not ({"target", "targets"} & set(batch)):
            raise ValueError(f"a report is for classification and multi-label networks, this one is for {task}")
        found.update(task=task, samples=samples)
        truth = batch["targets" if "targets" in batch else "target"].cpu().numpy()
        chances = spec.code("probabilities")(logits.float()).cpu().numpy()
        seen.append((batch["index"].tolist(), truth.astype(np.int64), chances))

    results = evaluate(checkpoint, data, split, options, settings, console, observe)
    if not seen:
        raise ValueError(f"no photo of {data} ({split}) could be read")
    samples = found["samples"]
    paths = tuple(samples.path(index) for part, _, _ in seen for index in part)
    return Answers(
        paths,
        np.concatenate([truth for _, truth, _ in seen]),
        np.concatenate([chances for _, _, chances in seen]),
        tuple(samples.classes),
        found["task"],
        _sizes(data, paths),
        results,
    )


def _sizes(data: str | Path, paths: tuple[str, ...]) -> np.ndarray:
    """(N,) from sizes.csv in the data folder, or in that which holds all photos of a list; NaN where it tells none."""
    files = [os.path.abspath(path) for path in paths]
    root = os.path.abspath(data)
    if is_listing(data):
        root = os.path.commonpath([os.path.dirname(file) for file in files])
    known = read_sizes(Path(root)) if os.path.isdir(root) else {}
    return np.array([known.get(Path(os.path.relpath(file, root)).as_posix(), np.nan) for file in files], np.float64)
