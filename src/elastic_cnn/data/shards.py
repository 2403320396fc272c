"""Pictures in tar files on a local disk, read by index: every sample once an epoch, in any order, by many workers.

Headers are read once; pictures are then read at their place in the file. (Streams shuffle in a buffer and cannot resume
exactly; readers that keep files open share their position between forked workers.)
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from timm.utils.misc import natural_key

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".bmp")


class _TarReader:
    """Samples by their place: `files[number]`, offset and size in bytes, and a name for messages."""

    files: list[Path]
    samples: list[tuple[int, int, int, str]]
    targets: list[int]
    class_to_idx: dict[str, int]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        number, offset, size, _ = self.samples[index]
        with self.files[number].open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size)), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        """`TAR:MEMBER`."""
        return self.samples[index][3]


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """All files in a tar. `ValueError` where it is broken or compressed."""
    try:
        with tarfile.open(path, "r:") as archive:
            yield from ((archive, member) for member in archive if member.isfile())
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a whole, uncompressed tar file: {error}") from error


class TarFolder(_TarReader):
    """A tar file of class folders; classes in natural order. `ValueError` where it is no tar file."""

    def __init__(self, path: Path) -> None:
        self.files, self.samples = [path], []
        labels = []
        for _, member in _members(path):
            if Path(member.name).suffix.lower() in IMAGES:
                self.samples.append((0, member.offset_data, member.size, f"{path}:{member.name}"))
                labels.append(Path(member.name).parent.name)
        self.class_to_idx = {name: number for number, name in enumerate(sorted(set(labels), key=natural_key))}
        self.targets = [self.class_to_idx[label] for label in labels]


class ShardReader(_TarReader):
    """WebDataset shards of a split: `SPLIT-*.tar`, `SPLIT_*.tar`, or those in the folder `SPLIT`.

    Members with the same stem are one sample: `0001.jpg` and `0001.cls`.

    Labels stand in `.cls` members, as numbers or names; names of numbered classes may stand in `classes.txt`.
    Raises `ValueError` where no shard is found, a shard is no tar file, or a sample lacks its picture or its label.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        patterns = [pattern for name in names for pattern in (f"{name}-*.tar", f"{name}_*.tar", f"{name}/*.tar")]
        self.files = sorted({path for pattern in patterns for path in root.glob(pattern)})
        if not self.files:
            raise ValueError(f"{root} holds no shards {' or '.join(patterns[:3])}")
        self.samples: list[tuple[int, int, int, str]] = []  # shard, offset and size in bytes, name
        labels = [label for number in range(len(self.files)) for label in self._index(number)]
        listing = root / "classes.txt"
        if listing.is_file():
            classes = listing.read_text(encoding="utf-8").split("\n")
            classes = [name.strip() for name in classes if name.strip()]
        elif all(label.isdecimal() for label in labels):
            classes = [str(number) for number in range(max(map(int, labels)) + 1)]
        else:
            classes = sorted(set(labels))
        self.class_to_idx = {name: number for number, name in enumerate(classes)}
        self.targets = [self._number(label, classes, index) for index, label in enumerate(labels)]

    def _index(self, number: int) -> list[str]:
        """Note the places of one shard's pictures; returns their labels."""
        path = self.files[number]
        pictures: dict[str, tuple[int, int, int, str]] = {}
        labels: dict[str, str] = {}
        for archive, member in _members(path):
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            key = f"{folder}/{stem}"
            if f".{ending.lower()}" in IMAGES:
                pictures[key] = (number, member.offset_data, member.size, f"{path}:{member.name}")
            elif ending == "cls" and (file := archive.extractfile(member)) is not None:
                labels[key] = file.read().decode("utf-8", "replace").strip()
        for key in pictures.keys() ^ labels.keys():
            what = "label (.cls)" if key in pictures else f"picture ({', '.join(IMAGES)})"
            raise ValueError(f"{path}: the sample {key.lstrip('/')} has no {what}")
        self.samples += pictures.values()
        return [labels[key] for key in pictures]

    def _number(self, label: str, classes: Sequence[str], index: int) -> int:
        if label in self.class_to_idx:
            return self.class_to_idx[label]
        if label.isdecimal() and int(label) < len(classes):
            return int(label)
        raise ValueError(f"{self.filename(index)}: its label {label!r} is none of the {len(classes)} classes")
