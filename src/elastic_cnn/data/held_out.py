"""Holding out a part of the photos to test on, where nobody divided them: the same part each time, class by class."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from elastic_cnn.data.folders import FolderReader


@dataclass(frozen=True)
class HeldOut:
    """`part` (0..1) of each class's photos is for testing; which ones follows from `seed` and their names alone."""

    part: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.part < 1:
            raise ValueError(f"split={self.part} must lie between 0 and 1: the part of the photos to test on")

    def divide(self, names: Sequence[str], labels: Sequence[str]) -> tuple[list[int], list[int]]:
        """Places of the photos to train on and of those to test on, each in order.

        At least one photo of a class is held out where it has two, and at least one is left; a single one is left.
        """
        by_class = defaultdict(list)
        for place, label in enumerate(labels):
            by_class[label].append(place)
        tested: set[int] = set()
        for places in by_class.values():
            count = min(max(round(self.part * len(places)), 1), len(places) - 1)
            tested |= set(sorted(places, key=lambda place: (self._draw(names[place]), place))[:count])
        return [p for p in range(len(labels)) if p not in tested], sorted(tested)

    def _draw(self, name: str) -> bytes:
        return hashlib.sha256(f"{self.seed}/{name}".encode("utf-8", "surrogatepass")).digest()

    def readers(self, whole: FolderReader) -> tuple[FolderReader, FolderReader]:
        """The photos to train on and those to test on; classes are numbered as in the whole."""
        found = whole.arrangement
        train, test = self.divide(found.names, found.labels)

        def part(places: list[int], **changes: Any) -> FolderReader:
            names, labels = (tuple(values[place] for place in places) for values in (found.names, found.labels))
            return replace(
                whole,
                arrangement=replace(found, names=names, labels=labels, **changes),
                targets=[whole.targets[place] for place in places],
            )

        return part(train), part(test, others={}, empty=())
