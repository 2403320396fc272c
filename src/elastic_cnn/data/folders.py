"""The one reader of folders of photos: what is a photo, what is passed over, and which class a photo is of.

Files of the system (`.DS_Store`, `._photo.jpg`, `Thumbs.db`, `__MACOSX`, ...) are passed over in silence, others that
are no pictures by their endings are counted. Names are compared as Unicode does (NFC), however a disk stores them.
"""

import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from timm.utils.misc import natural_key

from elastic_cnn.data.picture_kinds import ARRAYS, HEIF_ENDINGS, is_picture_name, picture_endings
from elastic_cnn.text import listed, printable, utf8

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
OF_THE_SYSTEM = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r"),
    *("__macosx", "$recycle.bin", "system volume information", "@eadir", "lost+found"),
)
SHEETS = (".xlsx", ".xls", ".ods", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def is_of_the_system(name: str) -> bool:
    """Whether a file or folder of this name is passed over: hidden, or written by a system for itself."""
    return name.startswith(".") or name.lower() in OF_THE_SYSTEM


def same_name(name: str) -> str:
    """The form in which names are compared: NFC, as most systems write them (macOS' disks hold NFD)."""
    return unicodedata.normalize("NFC", name)


def walk(root: str | Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, names of its folders, names of its files) below `root`, through links, without the system's own.

    `ValueError` for a link to a folder that holds it, through other links too: every picture would come many
    times over.
    """
    above: dict[str, tuple[str, ...]] = {
        os.fspath(root): (os.path.realpath(root),)
    }  # the real folders that hold one, and itself
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_of_the_system(name))
        holders = above.pop(folder)
        for name in folders:
            place = os.path.join(folder, name)
            is_link = os.path.islink(place)
            real = os.path.realpath(place) if is_link else os.path.join(holders[-1], name)
            if is_link and any(os.path.commonpath([holder, real]) == real for holder in holders):
                raise ValueError(f"{utf8(place)} is a link to a folder that holds it: remove the link")
            above[place] = (*holders, real)
        yield folder, folders, [name for name in files if not is_of_the_system(name)]


def find_pictures(folder: str | Path, deep: bool = True) -> list[Path]:
    """The pictures in a folder, and with `deep` in those below it, in natural order, without the system's own files.

    `ValueError` where there is no folder or none in it, saying which other files it holds.
    """
    root = Path(folder)
    check_folder(root)
    found: list[Path] = []
    others: Counter[str] = Counter()
    for place, folders, files in walk(root):
        if not deep:
            folders.clear()
        for name in files:
            if is_picture_name(name):
                found.append(Path(place, name))
            else:
                others[_ending(name)] += 1
    if not found:
        raise ValueError(f"{utf8(str(root))} holds no images{_instead(others)}")
    return sorted(found, key=lambda path: (natural_key(str(path)), str(path)))


def check_folder(path: Path) -> None:
    """`ValueError` where `path` is no folder."""
    if not path.exists():
        what = "list" if path.suffix.lower() == ".csv" else "folder"
        raise ValueError(f"there is no {what} {utf8(str(path))}")
    if not path.is_dir():
        ending = path.suffix.lower()
        remedy = ": unpack it" if ending in ARCHIVES else ": save it as CSV (path,label)" if ending in SHEETS else ""
        raise ValueError(f"{utf8(str(path))} is not a folder{remedy}")


@dataclass(frozen=True)
class Arrangement:
    """The pictures of a split: `names` relative to it in natural order, and the class of each, "" for none.

    others: files of other endings, counted. empty: class folders without any file. inner: folders of pictures inside a
    class folder that holds pictures too, each a class of its own.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()


def arrange(
    names: Iterable[str],
    where: str,
    labels: str = "needed",
    classes_from: str = "folder",
    known: Collection[str] = (),
) -> Arrangement:
    """The pictures among the files `names` (with `/`, relative to the split `where`) and their classes.

    labels: `needed`; `optional`, where pictures that lie in no class folder have none; `unused`, where all have none.
    classes_from: a class is named by the `folder` that holds its pictures, by the `top` folder that they lie below,
        or by the whole `path` (`birds/owl`).
    known: classes that there are: with `folder`, pictures in a folder of another name below one of them are of it.

    Raises `ValueError` for a picture beside the class folders, a class folder whose files are all of unknown endings,
    and folders of the same name in different places.
    """
    pictures: list[str] = []
    others: dict[str, Counter[str]] = {}
    for name in map(posixpath.normpath, names):
        if any(map(is_of_the_system, name.split("/"))):
            continue
        if is_picture_name(name):
            pictures.append(name)
        else:
            others.setdefault(posixpath.dirname(name), Counter())[_ending(name)] += 1
    counted: Counter[str] = sum(others.values(), Counter())
    if not pictures:
        raise ValueError(f"{where} holds no images{_instead(counted)}")
    pictures.sort(key=lambda name: (natural_key(name), name))
    folders = [posixpath.dirname(name) for name in pictures]
    if labels == "unused" or (labels == "optional" and not any(folders)):
        return Arrangement(tuple(pictures), ("",) * len(pictures), counted)
    _refuse_strays(where, [name for name, folder in zip(pictures, folders, strict=True) if not folder], len(pictures))
    _refuse_unknown(where, others, set(folders))
    holders = dict.fromkeys(folders)
    places = {folder: _class_folder(folder, classes_from, set(map(same_name, known))) for folder in holders}
    whole = classes_from == "path"
    named = {place: same_name(place if whole else posixpath.basename(place)) for place in places.values()}
    _refuse_same_names(where, named)
    inner = [] if classes_from != "folder" else [
        folder for folder, place in places.items() if folder == place and any(up in holders for up in _above(folder))
    ]  # fmt: skip
    return Arrangement(tuple(pictures), tuple(named[places[folder]] for folder in folders), counted, inner=tuple(inner))


def _above(folder: str) -> list[str]:
    """The folders that hold a folder (with `/`, relative), the innermost first."""
    parts = folder.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _class_folder(folder: str, classes_from: str, known: Collection[str]) -> str:
    """The folder that names the class of the pictures in `folder`, as `arrange` says."""
    if classes_from == "path":
        return folder
    if classes_from == "top":
        return folder.split("/")[0]
    places = [folder, *_above(folder)]
    return next((place for place in places if same_name(posixpath.basename(place)) in known), folder)


def _refuse_strays(where: str, strays: Sequence[str], count: int) -> None:
    if len(strays) == count:
        raise ValueError(
            f"{where} holds pictures and no class folders ({printable(utf8(strays[0]))}, ...): they belong in "
            "CLASS/IMAGE; `elastic predict` takes pictures without classes"
        )
    if strays:
        more = f" and {len(strays) - 1} more" if len(strays) > 1 else ""
        raise ValueError(
            f"{where}/{printable(utf8(strays[0]))}{more} lies beside the class folders and is of no class: move or "
            "remove it"
        )


def _refuse_unknown(where: str, others: Mapping[str, Counter[str]], known: set[str]) -> None:
    """A class whose pictures are all of endings that are not read would not be learnt."""
    for folder, endings in sorted(others.items()):
        if folder and not any(name == folder or name.startswith(f"{folder}/") for name in known):
            raise ValueError(
                f"{where}/{printable(utf8(folder))} holds {endings.total()} file(s) and no image{_instead(endings)}: "
                "save them as one of these, or remove the folder"
            )


def _refuse_same_names(where: str, named: Mapping[str, str]) -> None:
    places: dict[str, str] = {}
    for folder, name in named.items():
        first = places.setdefault(name, folder)
        if same_name(first) != same_name(folder):
            raise ValueError(
                f"{where}: the folders {printable(utf8(first))} and {printable(utf8(folder))} have the same name: "
                "rename one, or name classes by the outermost folders (--classes-from top) or by the whole path "
                "(--classes-from path)"
            )


def _ending(name: str) -> str:
    return utf8(os.path.splitext(name)[1].lower()) or "no ending"


def count_by_ending(others: Mapping[str, int]) -> str:
    """`3 .txt, 2 no ending`, the most frequent first."""
    ranked = sorted(others.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{count} {printable(ending)}" for ending, count in ranked[:6]) + (
        f" and {len(ranked) - 6} more endings" if len(ranked) > 6 else ""
    )


def _instead(others: Mapping[str, int]) -> str:
    """What is there in place of pictures, and what would be read."""
    if not others:
        return ""
    read = " ".join(ending.removeprefix(".") for ending in (*picture_endings(), ARRAYS))
    return f" ({count_by_ending(others)}); images are {read}{needed_for(others)}"


def needed_for(others: Mapping[str, int]) -> str:
    """What would be read with one more package, in words; empty for nothing."""
    return " (.heic needs the package pillow-heif)" if any(ending in HEIF_ENDINGS for ending in others) else ""


@dataclass(frozen=True)
class FolderReader:
    """A split in a folder: `reader[i]` is (path, number of the class)."""

    root: str
    arrangement: Arrangement
    class_to_idx: Mapping[str, int]
    targets: Sequence[int]
    unused: tuple[str, ...] = ()  # a notice about rows of a list

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.filename(index), self.targets[index]

    def filename(self, index: int, basename: bool = False, absolute: bool = True) -> str:
        """The picture's path."""
        return os.path.join(self.root, self.arrangement.names[index])


def read_folder(
    root: str | Path, labels: str = "needed", classes_from: str = "folder", known: Collection[str] = ()
) -> FolderReader:
    """The pictures below a folder and their classes, as `arrange` says; classes in natural order."""
    root = str(root)
    names: list[str] = []
    empty: list[str] = []
    for folder, folders, files in walk(root):
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        if not folders and not files and below != ".":
            empty.append(below)
        names += [name if below == "." else f"{below}/{name}" for name in files]
    found = arrange(names, utf8(root), labels, classes_from, known)
    if labels == "needed":
        _refuse_one_folder_twice(utf8(root), root, dict.fromkeys(map(posixpath.dirname, found.names)))
    return FolderReader(root, replace(found, empty=tuple(empty)), *numbers(found))


def _refuse_one_folder_twice(where: str, root: str, folders: Iterable[str]) -> None:
    """Through a link its photos would be of two classes, or come twice."""
    places: dict[str, str] = {}
    for folder in folders:
        first = places.setdefault(os.path.realpath(os.path.join(root, folder)), folder)
        if first != folder:
            raise ValueError(
                f"{where}: {printable(utf8(first))} and {printable(utf8(folder))} are one folder, by a link: "
                "remove the link, for each of its photos would come twice"
            )


def alike(classes: Sequence[str], split: str) -> tuple[str, ...]:
    """A notice about classes whose names differ in case, spaces or underscores alone."""
    first: dict[str, str] = {}
    pairs = []
    for name in classes:
        plain = " ".join(same_name(name).casefold().replace("_", " ").split())
        if (other := first.setdefault(plain, name)) is not name:
            pairs.append(f"{listed([other])} and {listed([name])}")
    if not pairs:
        return ()
    more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    return (f"{split}: the classes {pairs[0]} differ in case or spaces alone{more}: are they one?",)


def numbers(found: Arrangement) -> tuple[dict[str, int], list[int]]:
    """({class: number} in natural order, the number of each picture)."""
    classes = sorted(set(found.labels), key=lambda name: (natural_key(name), name))
    by_name = {name: number for number, name in enumerate(classes)}
    return by_name, [by_name[label] for label in found.labels]


def describe_counts(counts: Mapping[str, int], most: int = 12) -> str:
    """`2 classes (green 16, red 32)`; of many classes the range of their counts."""
    many = f"{len(counts)} class{'es' if len(counts) != 1 else ''}"
    if len(counts) <= most:
        return f"{many} ({', '.join(f'{printable(name)} {count}' for name, count in counts.items())})"
    low, high = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return f"{many} ({counts[low]} of {printable(low)} to {counts[high]} of {printable(high)})"


def describe_empty(empty: Sequence[str]) -> str:
    """A notice about class folders that hold nothing."""
    verbs = ("holds", "is") if len(empty) == 1 else ("hold", "are")
    return f"{listed(list(map(utf8, empty)))} {verbs[0]} no file and {verbs[1]} no class"
