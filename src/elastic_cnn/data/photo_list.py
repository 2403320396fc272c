"""Some photos of a split, by a list: those to train on alone, or those to leave out."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_cnn.text import listed, utf8

if TYPE_CHECKING:
    from elastic_cnn.data.image_folder import ImageFolder


@dataclass(frozen=True)
class ChosenReader:
    """A reader of some samples of another reader, in its order."""

    reader: Any
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.reader[self.indices[index]]

    def __getattr__(self, name: str) -> Any:  # classes, arrangement
        return getattr(self.reader, name)

    @property
    def targets(self) -> list[int] | None:
        """The numbers of the classes, where they are known without reading."""
        targets = getattr(self.reader, "targets", None)
        return None if targets is None else [targets[index] for index in self.indices]

    def filename(self, index: int, basename: bool = False, absolute: bool = True) -> str:
        """The picture's path."""
        return str(self.reader.filename(self.indices[index], basename, absolute))


def read_photo_list(path: str | Path) -> list[str]:
    """The paths in a list: one a line, or the column `path` of a CSV file (the explorer writes both).

    `ValueError`, naming the file, where it cannot be read, is empty, or is a CSV without that column.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list of photos {utf8(str(file))} cannot be read: {error}") from error
    if file.suffix.lower() == ".csv":
        rows = csv.DictReader(io.StringIO(text, newline=""))
        try:
            if "path" not in (rows.fieldnames or ()):
                raise ValueError(
                    f"{utf8(str(file))} has no column `path`: its first line is {text.split(chr(10))[0]!r:.80}"
                )
            names = [row["path"] for row in rows if row["path"]]
        except csv.Error as error:
            raise ValueError(f"{utf8(str(file))}, line {rows.reader.line_num}: {error}") from error
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{utf8(str(file))} lists no photo")
    return names


def keep_listed(samples: "ImageFolder", data: str, only: str | None = None, without: str | None = None) -> None:
    """Narrow `samples` to the photos in the list `only`, and to those that are not in the list `without`.

    Paths are relative to the data's folder (`train/owl/1.jpg`), to the split's folder, or whole. `ValueError` where a
    listed photo is not among the samples, or none is left.
    """
    kept: Sequence[int] = range(len(samples))
    told: list[str] = []
    for name, file in (("only", only), ("without", without)):
        if file is None:
            continue
        told.append(f"options.{name}={file}")
        chosen = _find(samples, data, file, told[-1])
        kept = [index for index in kept if (index in chosen) == (name == "only")]
    if told and not kept:
        raise ValueError(f"{' and '.join(told)} leaves no photo of {samples.name}")
    if told:
        samples.choose(kept, " and ".join(told))


def _find(samples: "ImageFolder", data: str, file: str, why: str) -> set[int]:
    """The numbers of the samples that a list names. `ValueError` for a name that is none of them."""
    places = _places(samples, data)
    chosen: set[int] = set()
    missing: list[str] = []
    for path in read_photo_list(file):
        if (place := places.get(path)) is None:
            missing.append(path)
        else:
            chosen.add(place)
    if missing:
        raise ValueError(
            f"{why}: {len(missing)} of its photos are not in {samples.name}: {listed(missing, 3)}; paths are relative "
            f"to {data}, as in {_example(places)!r}"
        )
    return chosen


def _places(samples: "ImageFolder", data: str) -> dict[str, int]:
    """{path: number} of every sample, under each of the ways in which a list may name it."""
    roots = [data.partition("/")[2] if data.startswith(("wds/", "hfds/")) else data, samples.name]
    places: dict[str, int] = {}
    for index in range(len(samples)):
        path = samples.path(index)
        places[path] = index
        for root in roots:
            places[path.removeprefix(utf8(root).rstrip("/") + "/")] = index
    return places


def _example(places: dict[str, int]) -> str:
    first = [path for path, index in places.items() if index == 0]
    return sorted(first, key=len)[min(1, len(first) - 1)]  # relative to the data; the shortest is so to the split
