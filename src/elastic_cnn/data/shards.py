"""Pictures in tar files, on a disk or a web server, read by index: every sample once an epoch, in any order, by any
number of workers and processes.

Headers are read once; pictures are then read at their place in the file. (Streams shuffle in a buffer and cannot resume
exactly; readers that keep files open share their position between forked workers.)
"""

import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from elastic_cnn.data.folders import arrange, is_of_the_system, numbers
from elastic_cnn.data.picture_kinds import picture_endings
from elastic_cnn.data.remote import RemoteFile, describe, is_url, read_range, read_whole
from elastic_cnn.files import write_text
from elastic_cnn.text import utf8

LISTING = "shards.json"
AT_A_TIME = 16  # requests that a process has under way
CACHE_VERSION = 1


class PictureBytes(NamedTuple):
    """Where a picture lies: its tar file's number, offset and size in bytes; its name for messages."""

    number: int
    offset: int
    size: int
    name: str


class _TarReader:
    """Samples by their place in the tar files `files`: paths or URLs."""

    files: list[str]
    samples: list[PictureBytes]
    targets: list[int]
    class_to_idx: dict[str, int]

    def __init__(self) -> None:
        self._fetched: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        content = self._fetched.pop(index, None)
        return io.BytesIO(self._read(index) if content is None else content), self.targets[index]

    def prefetch(self, indices: Sequence[int]) -> None:
        """Fetch what lies on a server, several at a time; the next reads of these samples take it."""
        far = [index for index in indices if is_url(self.files[self.samples[index].number])]
        if far:
            with ThreadPoolExecutor(min(AT_A_TIME, len(far))) as pool:
                self._fetched = dict(zip(far, pool.map(self._read, far), strict=True))

    def _read(self, index: int) -> bytes:
        place = self.samples[index]
        file = self.files[place.number]
        if is_url(file):
            return read_range(file, place.offset, place.size)
        with open(file, "rb") as local:
            local.seek(place.offset)
            return local.read(place.size)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """`TAR:MEMBER`."""
        return self.samples[index].name


def _members(file: str) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All files in a tar. `ValueError` where it is broken or compressed, or names files in no known encoding."""
    try:
        with (
            io.BufferedReader(RemoteFile(file)) if is_url(file) else open(file, "rb") as opened,
            tarfile.open(fileobj=opened, mode="r:") as archive,
        ):
            yield from ((archive, member) for member in archive if member.isfile())
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{file} is not a whole, uncompressed tar file: {error}") from error


class TarFolder(_TarReader):
    """A tar file of class folders, read as a folder of them is. `ValueError` where it is no tar file."""

    def __init__(
        self, path: Path, labels: str = "needed", classes_from: str = "folder", known: Collection[str] = ()
    ) -> None:
        super().__init__()
        places = {
            posixpath.normpath(member.name): PictureBytes(0, member.offset_data, member.size, f"{path}:{member.name}")
            for _, member in _members(str(path))
        }
        self.files = [str(path)]
        self.arrangement = arrange(places, utf8(str(path)), labels, classes_from, known)
        self.samples = [places[name] for name in self.arrangement.names]
        self.class_to_idx, self.targets = numbers(self.arrangement)


class ShardReader(_TarReader):
    """WebDataset shards of a split: in a folder `SPLIT-*.tar`, `SPLIT_*.tar`, or those in its folder `SPLIT`; at a URL
    those that its `shards.json` lists.

    `shards.json`: {"train": ["train-{0000..1023}.tar"], "val": [...], "classes": [...]}, addresses relative to it.
    Members with the same stem are one sample: `0001.jpg` and `0001.cls`. Labels stand in `.cls` members, as numbers or
    names; names of numbered classes may stand in `classes.txt` (at a URL in `shards.json`).

    Raises `ValueError` where no shard is found, a shard is no tar file, or a sample lacks its picture or its label, and
    `OSError` where a server does not answer.
    """

    def __init__(self, root: str | Path, names: Sequence[str]) -> None:
        super().__init__()
        find = _listed if is_url(str(root)) else _found
        self.files, classes = find(str(root), names)
        with ThreadPoolExecutor(AT_A_TIME if is_url(str(root)) else 1) as pool:
            parts = list(pool.map(_index, range(len(self.files)), self.files))
        self.samples = [place for places, _ in parts for place in places]
        labels = [label for _, found in parts for label in found]
        if not classes and all(label.isdecimal() for label in labels):
            classes = [str(number) for number in range(max(map(int, labels), default=-1) + 1)]
        classes = classes or sorted(set(labels))
        self.class_to_idx = {name: number for number, name in enumerate(classes)}
        self.targets = [self._number(label, classes, index) for index, label in enumerate(labels)]

    def _number(self, label: str, classes: Sequence[str], index: int) -> int:
        if label in self.class_to_idx:
            return self.class_to_idx[label]
        if label.isdecimal() and int(label) < len(classes):
            return int(label)
        raise ValueError(f"{self.filename(index)}: its label {label!r} is none of the {len(classes)} classes")


def _found(root: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The shards of a split in a local folder, and the names of the classes where `classes.txt` tells them."""
    patterns = [pattern for name in names for pattern in (f"{name}-*.tar", f"{name}_*.tar", f"{name}/*.tar")]
    files = sorted({str(path) for pattern in patterns for path in Path(root).glob(pattern)})
    if not files:
        raise ValueError(f"{root} holds no shards {' or '.join(patterns[:3])}")
    listing = Path(root) / "classes.txt"
    lines = listing.read_text(encoding="utf-8").split("\n") if listing.is_file() else []
    return files, [line.strip() for line in lines if line.strip()]


def _listed(root: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The same at a URL, from its `shards.json`."""
    base = root.rstrip("/")
    url = f"{base}/{LISTING}"
    try:
        listing = json.loads(read_whole(url))
        patterns = next((listing[name] for name in names if name in listing), None)
        classes = listing.get("classes", [])
        if not isinstance(patterns or [], list) or not isinstance(classes, list):
            raise TypeError("each of its entries must be a list")
        if not all(isinstance(entry, str) for entry in [*(patterns or []), *classes]):
            raise TypeError("its lists must hold texts")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{url} is not a listing like {{"train": ["train-{{000..127}}.tar"]}}: {error}') from error
    if not patterns:
        raise ValueError(f"{url} lists no shards under {' or '.join(map(repr, names))}")
    files = [name if is_url(name) else f"{base}/{name}" for pattern in patterns for name in expand(pattern)]
    return files, list(classes)


def expand(pattern: str) -> list[str]:
    """`a-{08..11}.tar` -> a-08.tar to a-11.tar, numbers as wide as the first. At most a million names."""
    match = re.search(r"\{(\d{1,6})\.\.(\d{1,6})\}", pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    return [
        name
        for number in range(int(first), int(last) + 1)
        for name in expand(f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}")
    ]


def _index(number: int, file: str) -> tuple[list[PictureBytes], list[str]]:
    """Places and labels of a shard's samples; those of a shard on a server are kept in the user's cache."""
    kept = _cache_file(file) if is_url(file) else None
    if kept is not None and kept.is_file():
        try:
            rows = json.loads(kept.read_text(encoding="utf-8"))
            places = [PictureBytes(number, int(offset), int(size), str(name)) for offset, size, name, _ in rows]
            return places, [str(label) for *_, label in rows]
        except (ValueError, TypeError, RecursionError):
            kept.unlink(missing_ok=True)
    pictures: dict[str, PictureBytes] = {}
    labels: dict[str, str] = {}
    for archive, member in _members(file):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        key = f"{folder}/{stem}"
        if is_of_the_system(base):
            continue
        if f".{ending.lower()}" in picture_endings():
            if key in pictures:
                raise ValueError(f"{file}: the sample {key.lstrip('/')} has two pictures, .{ending} being the second")
            pictures[key] = PictureBytes(number, member.offset_data, member.size, f"{file}:{member.name}")
        elif ending == "cls" and (opened := archive.extractfile(member)) is not None:
            labels[key] = opened.read().decode("utf-8", "replace").strip()
    for key in pictures.keys() ^ labels.keys():
        what = "label (.cls)" if key in pictures else f"picture ({', '.join(picture_endings())})"
        raise ValueError(f"{file}: the sample {key.lstrip('/')} has no {what}")
    places, found = list(pictures.values()), [labels[key] for key in pictures]
    if kept is not None:
        _keep(kept, ([place.offset, place.size, place.name, label] for place, label in zip(places, found, strict=True)))
    return places, found


def _cache_file(url: str) -> Path:
    """Where the index of this version of a shard is kept."""
    size, version = describe(url)
    digest = hashlib.sha256(f"{CACHE_VERSION} {url} {size} {version}".encode()).hexdigest()[:32]
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "elastic-cnn" / "shards" / f"{digest}.json"


def _keep(path: Path, rows: Iterable[list[object]]) -> None:
    try:
        write_text(path, json.dumps(list(rows)))
    except OSError:  # a home that cannot be written costs time at the next start, no more
        return
