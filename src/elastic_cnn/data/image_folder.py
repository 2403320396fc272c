"""Photos with one class each: folders, tar files, WebDataset shards and Hugging Face data sets."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elastic_cnn.data.folders import (
    SPLITS,
    FolderReader,
    alike,
    check_folder,
    count_by_ending,
    describe_counts,
    describe_empty,
    needed_for,
    read_folder,
    same_name,
)
from elastic_cnn.data.held_out import HeldOut
from elastic_cnn.data.hub_data import open_hub_data
from elastic_cnn.data.listings import Row, is_listing, read_listing
from elastic_cnn.data.photo_list import ChosenReader
from elastic_cnn.data.pixels import Source
from elastic_cnn.data.remote import is_url
from elastic_cnn.data.shards import ShardReader, TarFolder
from elastic_cnn.data.splits import split_place, undivided
from elastic_cnn.data.transforms import Transform, eval_transform, prepare, train_transform
from elastic_cnn.text import listed, named_in, utf8, wrong_class_name

__all__ = ["ImageFolder", "eval_transform", "train_transform"]


class ImageFolder:
    """Samples `{"image": transform(picture), "target": class number}` of one split.

    data: a folder with `train` and `val` (or `validation`) in it, each a folder of class folders, a tar file
        (`train.tar`) of one or a list (`train.csv`); a list of photos (`listings.read_listing`); a Hugging Face data
        set as `hfds/NAME`; WebDataset shards as `wds/FOLDER` or `wds/URL`.
    split: `train`, `val`, `test`, or another folder's name.
    transform: a `Preparation`, or another function of an RGB picture.
    classes: the classes to number by (those of the training split or of a checkpoint); all must be known among them. By
        default the classes found, in natural order. Names are compared in Unicode's form NFC.
    labels: `needed`; `optional` also takes a folder of photos alone, then of the one class ""; `unused` takes any
        folder of photos. With these two `data` may be the split itself.
    classes_from: `folder`, `top` or `path` (`birds/owl`), as `folders.arrange` says; by default as `classes` say.
    known: classes that name folders, where others may come too; by default `classes`.
    held_out: divides data that nobody divided (`undivided`) into `train` and `val`.

    What was found stands in `found_line`, what a user should know in `notices`, photos a class in `counts` (empty where
    they are not known without reading). Raises `ValueError` where the split is missing or empty, holds a class that is
    not among `classes`, or is arranged in a way that `folders.arrange` refuses.
    """

    def __init__(
        self,
        data: str | Path,
        split: str,
        transform: Transform,
        classes: Sequence[str] | None = None,
        *,
        labels: str = "needed",
        classes_from: str | None = None,
        known: Sequence[str] = (),
        held_out: HeldOut | None = None,
    ) -> None:
        self.transform = transform
        known = known or classes or ()
        way = Naming(classes_from or ("path" if any("/" in name for name in known) else "folder"), known)
        self.whole = None if held_out is None else undivided(str(data))
        if self.whole is None or held_out is None:
            self.name, self.reader = _open(str(data), split, labels, way)
        else:
            self.name, self.reader = _part(self.whole, split, labels, way, held_out)
        found = _class_names(self.reader)
        if len(self.reader) == 0 or not found:
            raise ValueError(f"{self.name} holds no images")
        if unnameable := [name for name in found if utf8(name) != name]:
            raise ValueError(f"{self.name}: the class folder {utf8(unnameable[0])} is not named in {named_in()}")
        named = found if labels == "needed" else [name for name in found if name]
        if wrong := wrong_class_name(named):
            raise ValueError(f"{self.name}: {wrong}")
        self.classes = tuple(found if classes is None else classes)
        numbers = {same_name(name): number for number, name in enumerate(self.classes)}
        if unknown := [name for name in found if same_name(name) not in numbers]:
            near = [name for name in self.classes if _loosely(name) == _loosely(unknown[0]) != ""]
            remedy = f"is {listed(near)} meant?" if near else "remove it, or add it to the training images"
            raise ValueError(
                f"{self.name} holds {listed(unknown)}, which the {len(self.classes)} classes to choose from lack "
                f"({listed(self.classes)}): {remedy}"
            )
        self._split, self.found = split, tuple(found)
        self._number = {index: numbers[same_name(name)] for index, name in enumerate(found)}
        self._describe()
        self.notices = self._notices(split)
        if classes is None:
            self.notices += alike(found, split) + self._inner(split) + getattr(self.reader, "unused", ())

    def choose(self, indices: Sequence[int], why: str) -> None:
        """Keep these samples alone, in the order given; `why` is told in the notices."""
        before = len(self)
        self.reader = ChosenReader(self.reader, tuple(indices))
        self._describe()
        self.notices += (f"{self._split}: {len(self)} of {before} photos by {why}",)
        names = [self.classes[number] for number in sorted(set(self._number.values()))]
        if self.counts and (lost := [name for name in names if name not in self.counts]):
            self.notices += (f"{self._split}: no photo is left of {listed(lost)}",)

    def _describe(self) -> None:
        self.counts = self._count()
        self.found_line = f"{self._split}: {len(self)} photos"
        if list(self.found) != [""]:
            self.found_line += (
                f" in {describe_counts(self.counts)}" if self.counts else f" in {len(self.found)} classes"
            )

    def _count(self) -> dict[str, int]:
        targets = getattr(self.reader, "targets", None)
        if targets is None:
            return {}
        counts = Counter(self._number[number] for number in targets)
        return {name: counts[number] for number, name in enumerate(self.classes) if counts[number]}

    def _notices(self, split: str) -> tuple[str, ...]:
        lines = []
        arrangement = getattr(self.reader, "arrangement", None)
        if arrangement is not None and arrangement.others:
            lines.append(
                f"{split}: {sum(arrangement.others.values())} files that are no images passed over "
                f"({count_by_ending(arrangement.others)}){needed_for(arrangement.others)}"
            )
        known = set(map(same_name, self.classes))
        empty = () if arrangement is None else arrangement.empty
        if no_class := [name for name in empty if not known & {same_name(name), same_name(name.rpartition("/")[2])}]:
            lines.append(f"{split}: {describe_empty(no_class)}")
        found = self.counts or {self.classes[number] for number in self._number.values()}
        self.lacking = tuple(name for name in self.classes if name not in found)
        if self.lacking:
            lines.append(self.lacking_line)
        return tuple(lines)

    def _inner(self, split: str) -> tuple[str, ...]:
        arrangement = getattr(self.reader, "arrangement", None)
        if arrangement is None or not arrangement.inner:
            return ()
        names = listed(arrangement.inner)
        return (
            f"{split}: {names}, inside a class folder that holds photos too, "
            f"{'is a class of its own' if len(arrangement.inner) == 1 else 'are classes of their own'}: "
            "--classes-from top counts such photos to the outer folder",
        )

    @property
    def lacking_line(self) -> str:
        """Which classes have no photo; where most have none, how many have some (`found_line` names those)."""
        every, lacking = len(self.classes), len(self.lacking)
        if lacking > max(8, every - lacking):
            return f"{self._split} has photos of {every - lacking} of the {every} classes"
        return f"{self._split} lacks {lacking} of the {every} classes: {listed(self.lacking)}"

    def require_several_classes(self) -> None:
        """`ValueError` where there is nothing to tell apart; the data's folder may be one level off."""
        if len(self.classes) < 2:
            raise ValueError(
                f"{self.name} holds one class, {listed(self.classes)}: at least two are needed; is the folder "
                "that --data names one level off?"
            )

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> dict[str, Any]:
        source, target = self._read(index)
        name = utf8(source) if isinstance(source, str) else self.path(index)
        return {"image": prepare(self.transform, source, name), "target": self._number[int(target)]}

    def _read(self, index: int) -> tuple[Source, int]:
        file, target = self.reader[index]
        if isinstance(file, str):
            return file, target
        with file:
            return file.read(), target

    def target(self, index: int) -> int:
        """The number of a sample's class, without reading its picture. `ValueError` where that takes reading it."""
        targets = getattr(self.reader, "targets", None)
        if targets is None:
            raise ValueError(f"the classes of {self.name} are not known without reading every picture")
        return self._number[int(targets[index])]

    def classes_without(self, unreadable: Collection[str]) -> list[str]:
        """The classes all of whose photos are among these absolute paths; none where classes are not known."""
        if not unreadable or not self.counts:
            return []
        left = Counter(
            self.target(index) for index in range(len(self)) if os.path.abspath(self.path(index)) not in unreadable
        )
        return [name for name in self.counts if not left[self.classes.index(name)]]

    def rows(self, split: str) -> list[Row]:
        """The photos as rows of a list, of readers of files."""
        return [
            Row(os.path.abspath(self.reader.filename(index)), self.classes[self.target(index)], split)
            for index in range(len(self))
        ]

    def source(self, index: int) -> Source:
        """The picture's path, or its file's contents where it lies in a larger file."""
        return self._read(index)[0]

    def prefetch(self, indices: Sequence[int]) -> None:
        """Fetch these samples' files together where they lie on a server."""
        reader = self.reader
        if isinstance(reader, ChosenReader):
            reader, indices = reader.reader, [reader.indices[index] for index in indices]
        if isinstance(reader, ShardReader):
            reader.prefetch(indices)

    def path(self, index: int) -> str:
        """The picture's path below the split's folder, with it where it is a file."""
        return utf8(str(self.reader.filename(index, absolute=True)))


class Naming(NamedTuple):
    """How folders name classes: `classes_from` and `known` of `folders.arrange`."""

    classes_from: str
    known: Sequence[str]


def _open(data: str, split: str, labels: str, way: Naming) -> tuple[str, Any]:
    """The name of a split for messages, and its reader: `reader[i] -> (path or binary file, number)`."""
    if data.startswith("hfds/"):
        return open_hub_data(data, SPLITS.get(split, (split,)))
    if data.startswith("wds/"):
        place = data.removeprefix("wds/")
        if not is_url(place):
            check_folder(Path(place))
        return f"{place} ({split})", ShardReader(place, SPLITS.get(split, (split,)))
    if is_url(data):
        raise ValueError(f"{data} is an address: photos are read from folders, or from shards by wds/{data}")
    root = split_place(Path(data), split, alone=labels != "needed")
    if is_listing(root):
        return utf8(str(root)), read_listing(root, SPLITS.get(split, (split.lower(),)), labels)
    if root.is_file():
        return utf8(str(root)), TarFolder(root, labels, *way)
    return utf8(str(root)), read_folder(root, labels, *way)


def _part(whole: Path, split: str, labels: str, way: Naming, held_out: HeldOut) -> tuple[str, FolderReader]:
    """The part of undivided photos that is `split`: `train` or `val`."""
    if split not in ("train", "val"):
        raise ValueError(f"{utf8(str(whole))} is divided into train and val: there is no split {split!r}")
    reader = read_listing(whole, None, labels) if is_listing(whole) else read_folder(whole, labels, *way)
    return f"{utf8(str(whole))} ({split})", held_out.readers(reader)[split == "val"]


def _loosely(name: str) -> str:
    """A class's name without what people write one way here and another way there."""
    return "".join(letter for letter in same_name(name).casefold() if letter.isalnum())


def _class_names(reader: Any) -> list[str]:
    """Names of the classes in the order of their numbers in the reader."""
    mapping = reader.class_to_idx
    if mapping:
        return [str(name) for name, _ in sorted(mapping.items(), key=lambda item: item[1])]
    numbers = {int(reader[index][1]) for index in range(len(reader))}
    return [str(number) for number in range(max(numbers, default=-1) + 1)]
