"""Where the annotations and photos of a data set in COCO's format lie: the layouts of COCO and of tools."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from elastic_cnn.data.folders import SPLITS
from elastic_cnn.data.mask_pairs import SPLIT

PATTERNS = (
    "annotations/instances_{}.json",
    "annotations/instances_{}20[0-9][0-9].json",
    "{}/_annotations.coco.json",
    "annotations/{}.json",
    "{}.json",
)


@dataclass(frozen=True)
class CocoPlaces:
    """Where to look: a file and a folder below the data folder (or anywhere), `{split}` for the split's name.

    annotations: the file, `annotations/instances_{split}.json`; empty: found as `find_annotations` says.
    images: the folder of the photos, `images/{split}`; empty: found as `find_split` says.
    """

    annotations: str = ""
    images: str = ""

    def check_splits(self, *splits: str) -> None:
        """`ValueError` where several splits would be one file."""
        if self.annotations and SPLIT not in self.annotations and len(set(splits)) > 1:
            raise ValueError(
                f"annotations={self.annotations!r} would be the file of {' and of '.join(splits)}: write {SPLIT} for "
                f"the split's name (as annotations/instances_{SPLIT}.json)"
            )


def find_split(root: str | Path, split: str, places: CocoPlaces = CocoPlaces()) -> tuple[Path, list[Path]]:
    """(annotation file, folders in which its photos may lie, the likeliest first) of a split of the data in `root`.

    `ValueError` says what was looked for and what is there.
    """
    root = Path(root)
    path = root / places.annotations.replace(SPLIT, split) if places.annotations else find_annotations(root, split)
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path}")
    if places.images:
        folder = root / places.images.replace(SPLIT, split)
        if not folder.is_dir():
            raise ValueError(f"there is no folder of photos {folder}")
        return path, [folder]
    name = path.stem.removeprefix("instances_")
    folders = [root / name, root / "images" / name, root / split, root / "images" / split, root / "images"]
    folders += [path.parent / "images", path.parent, root, path.parent.parent]
    return path, [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def find_annotations(root: Path, split: str) -> Path:
    """The file of a split: `annotations/instances_SPLIT.json`, the only `instances_SPLIT20NN.json`, or as tools name
    it: `SPLIT/_annotations.coco.json` (Roboflow), `annotations/SPLIT.json`, `SPLIT.json`. `val` finds `valid` too.
    """
    names = SPLITS.get(split, (split,))
    for pattern in PATTERNS:
        found = sorted(path for name in names for path in root.glob(pattern.format(name)))
        if len(found) > 1:
            several = ", ".join(path.name for path in found)
            raise ValueError(f"{root} has more than one file of annotations for the split {split!r}: {several}")
        if found:
            return found[0]
    files = [path for depth in ("*.json", "*/*.json") for path in root.glob(depth)]
    there = sorted(path.relative_to(root).as_posix() for path in files)
    raise ValueError(
        f"{root} has no annotations for the split {split!r}: looked for {root / PATTERNS[0].format(split)} and the "
        f"like; it holds {', '.join(there[:8]) or 'no .json file'}. Name the file with options.annotations "
        "(--annotations), or another split"
    )


def find_photos(names: Sequence[str], ids: Sequence[int], folders: Sequence[Path], annotations: Path) -> list[Path]:
    """The file of each photo, by its `file_name`; a folder is listed once, no photo is looked at.

    A `file_name` may have folders in it, with / or \\; it is looked for below each of `folders` in turn, then by its
    last part alone. `ValueError` for one that is absolute or leads upwards, two photos of one name or file, and photos
    that are not there.
    """
    paths = [_relative(name, key, annotations) for name, key in zip(names, ids, strict=True)]
    listing: dict[str, set[str]] = {}
    best: tuple[int, str, Path] = (len(names) + 1, "", Path())
    for plain in (paths, [PurePosixPath(path).name for path in paths]):
        for folder in folders:
            missing = [name for name in plain if not _is_there(folder, name, listing)]
            if not missing:
                files = [folder / name for name in plain]
                _check_distinct(files, ids, annotations)
                return files
            best = min(best, (len(missing), missing[0], folder), key=lambda found: found[0])
    count, first, folder = best
    more = f" (nor in {', '.join(str(f) for f in folders if f != folder)})" if len(folders) > 1 else ""
    raise ValueError(
        f"{folder} lacks {count} of the {len(names)} images of {annotations}, the first is {first}{more}: the "
        "download may be incomplete, or options.images (--images) says where they lie"
    )


def _relative(name: str, key: int, annotations: Path) -> str:
    """A photo's `file_name` with /, without `.` in it."""
    plain = name.replace("\\", "/")
    path = os.path.normpath(plain) if name else ""
    if not path or path == "." or "\0" in path:
        raise ValueError(f"{annotations}: the file_name {name!r} of image {key} names no file")
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in plain.split("/"):
        raise ValueError(
            f"{annotations}: the file_name {name!r} of image {key} leads out of the data: write it below the "
            "images' folder"
        )
    return path


def _is_there(folder: Path, name: str, listing: dict[str, set[str]]) -> bool:
    parent, _, last = name.rpartition("/")
    place = os.path.join(folder, parent)
    if place not in listing:
        listing[place] = set(os.listdir(place)) if os.path.isdir(place) else set()
    return last in listing[place]


def _check_distinct(files: Sequence[Path], ids: Sequence[int], annotations: Path) -> None:
    """`ValueError` where two images are one file: their objects would be missed in turn."""
    if len(set(files)) == len(files):
        return
    first: dict[Path, int] = {}
    for file, key in zip(files, ids, strict=True):
        if file in first:
            raise ValueError(
                f"{annotations}: the images {first[file]} and {key} are both the file {file}: give all its objects one "
                "image id"
            )
        first[file] = key
