"""COCO's images and instance annotations as multi-label samples with object sizes.

Reads the JSON that COCO ships (2014, 2017) and files of the same layout, without pycocotools. An image is positive for
a class if it holds an object of it, and for (class, size) if it holds one of that size, by `area` in the photo's native
pixels: small < 32^2 <= medium < 96^2 <= large. Images without an annotation are kept: all their targets are 0.

Crowds (`iscrowd` 1, one region around many objects) count like objects, with the area of their region, as in the
paper's code; `crowds="drop"` leaves them out.
"""

import gc
import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from elastic_cnn.data.json_keys import repeated_key
from elastic_cnn.data.pixels import read_rgb

SIZE_NAMES = ("small", "medium", "large")
AREA_BOUNDS = (32**2, 96**2)  # square pixels of the native photo

# Polygons are most of a file and of no use here; in valid JSON this pattern matches nothing but them.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[-+0-9eE.,\s\[\]]*\]')


class _Annotation(NamedTuple):
    id: Any
    image_id: Any
    category_id: Any
    area: Any
    iscrowd: Any


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of N images with K objects of C classes.

    path: the JSON file. classes: names in the order of their ids. image_ids: (N,) ascending. file_names: N.
    image_of, class_of: (K,) the number (not the id) of an object's image, ascending, and of its class.
    areas: (K,) square pixels of the native photo. dropped: why objects were left out -> how many.
    """

    path: Path
    classes: tuple[str, ...]
    image_ids: np.ndarray
    file_names: list[str]
    image_of: np.ndarray
    class_of: np.ndarray
    areas: np.ndarray
    dropped: dict[str, int]

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def size_targets(self) -> np.ndarray:
        """(N, 3, C) bool: image n holds an object of the size and class."""
        targets = np.zeros((len(self), len(SIZE_NAMES), len(self.classes)), bool)
        targets[self.image_of, np.digitize(self.areas, AREA_BOUNDS), self.class_of] = True
        return targets

    @cached_property
    def targets(self) -> np.ndarray:
        """(N, C) bool: image n holds an object of the class."""
        return np.asarray(self.size_targets.any(1))

    def objects(self, index: int) -> slice:
        """Where the objects of image number `index` stand in `class_of` and `areas`."""
        first, last = np.searchsorted(self.image_of, [index, index + 1])
        return slice(int(first), int(last))


def read_annotations(
    path: str | Path,
    *,
    exclude: Sequence[str] = (),
    crowds: Literal["label", "drop"] = "label",
    zero_area: Literal["error", "keep", "drop"] = "error",
) -> CocoAnnotations:
    """Read an `instances_*.json`. 118,000 images with 860,000 polygons take about 6 s and 1 GB.

    exclude: names of categories to leave out, with their objects. crowds: see the module. zero_area: what to do with
    objects of area 0 (COCO's own train2017 has a few): refuse the file, keep them as small, or drop them.

    Raises `ValueError`, naming the file and the entry, for JSON that is broken or of another layout, ids that are
    repeated or that nothing has, names that `exclude` alone knows, and areas that are negative or, by default, 0.
    """
    path = Path(path)
    content = _read_json(path)
    images, categories, annotations = (_entries(content, key, path) for key in ("images", "categories", "annotations"))
    image_ids, file_names = _identify(images, "file_name", "image", path)
    category_ids, names = _identify(categories, "name", "category", path)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path}: two categories are named {repeated[0]!r}")
    if unknown := sorted(set(exclude) - set(names)):
        raise ValueError(f"{path} has no category {unknown[0]!r} to exclude; it has {', '.join(names)}")
    classes = tuple(name for name in names if name not in exclude)
    if not classes:
        raise ValueError(f"{path}: all {len(names)} categories are excluded")

    columns = _columns(annotations, path)
    image_of = _look_up(columns["image_id"], image_ids, "image", columns, path)
    category_of = _look_up(columns["category_id"], category_ids, "category", columns, path)
    new_number = np.array([classes.index(name) if name in classes else -1 for name in names])
    areas, zero = columns["area"], columns["area"] == 0
    if bad := np.flatnonzero(~np.isfinite(areas) | (areas < 0)).tolist():
        raise ValueError(f"{path}: annotation {columns['id'][bad[0]]} has the area {areas[bad[0]]}")
    kept = new_number[category_of] >= 0 if len(names) else np.zeros(0, bool)
    if zero_area == "error" and (bad := np.flatnonzero(zero & kept).tolist()):
        image = image_ids[image_of[bad[0]]]
        raise ValueError(
            f"{path}: annotation {columns['id'][bad[0]]} of image {image} has the area 0 ({len(bad)} such): mend the "
            "file, or choose zero_area `drop` or `keep` (as a small object)"
        )
    dropped = {"category excluded": int((~kept).sum())}
    for reason, of, policy in (("crowd", columns["iscrowd"] == 1, crowds), ("area 0", zero, zero_area)):
        if policy == "drop":
            dropped[reason] = int((of & kept).sum())
            kept = kept & ~of
    order = np.flatnonzero(kept)[np.argsort(image_of[kept], kind="stable")]
    objects = (image_of[order], new_number[category_of[order]], areas[order])
    return CocoAnnotations(path, classes, image_ids, file_names, *objects, {k: n for k, n in dropped.items() if n})


def _read_json(path: Path) -> dict[str, Any]:
    """The top-level mapping, its annotations as `_Annotation`, without polygons. `ValueError` where it is broken."""
    if not path.is_file():
        raise ValueError(f"there is no annotation file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: download it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        stripped = _POLYGONS.sub(b'"segmentation":0', whole)
    try:
        with _no_collection():
            content = json.loads(stripped, object_pairs_hook=_keep)
    except (ValueError, RecursionError) as error:
        reason = _position_in_file(path) or str(error)
        raise ValueError(f"{path} is not valid JSON ({reason}): it may be truncated, download it again") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not COCO's mapping of images, annotations, categories"
        )
    return content


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which would walk the growing list of annotations again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _position_in_file(path: Path) -> str:
    """What is wrong with the JSON, with line and column in the file itself; empty where nothing is."""
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _keep(pairs: list[tuple[str, Any]]) -> Any:
    """What is kept of a JSON object: of annotations five values, of others all but run-length masks."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(repeated_key(pairs))
    if "image_id" not in values:
        values.pop("counts", None)
        return values
    get = values.get
    return _Annotation(get("id"), get("image_id"), get("category_id"), get("area"), get("iscrowd", 0))


def _entries(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} has no list {key!r}: an instances file of COCO has images, annotations and categories"
        )
    return entries


def _identify(entries: list[Any], value: str, kind: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """(ids ascending, the entries' `value` in this order) of images or categories."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or not isinstance(entry.get(value), str):
            raise ValueError(f"{path}: {kind} number {number} lacks a whole `id` or a `{value}`: {_short(entry)}")
    entries = sorted(entries, key=lambda entry: entry["id"])
    ids = np.array([entry["id"] for entry in entries], np.int64)
    if len(repeated := ids[1:][np.diff(ids) == 0]):
        raise ValueError(f"{path}: the {kind} id {repeated[0]} is given twice")
    return ids, [entry[value] for entry in entries]


def _columns(annotations: list[Any], path: Path) -> dict[str, np.ndarray]:
    """{field: (K,)} of the annotations, with their types checked."""
    for number, annotation in enumerate(annotations):
        if type(annotation) is not _Annotation:
            raise ValueError(f"{path}: annotation number {number} lacks `image_id`: {_short(annotation)}")
    columns = {}
    fields = zip(*annotations, strict=True) if annotations else [()] * len(_Annotation._fields)
    for name, values in zip(_Annotation._fields, fields, strict=True):
        types = {int, float} if name == "area" else {int}
        if not set(map(type, values)) <= types:
            number = next(i for i, value in enumerate(values) if type(value) not in types)
            wanted = "number" if name == "area" else "whole number"
            raise ValueError(
                f"{path}: `{name}` of annotation number {number} is no {wanted}: {_short(annotations[number])}"
            )
        columns[name] = np.array(values, np.float64 if name == "area" else np.int64)
    return columns


def _look_up(wanted: np.ndarray, ids: np.ndarray, kind: str, columns: dict[str, np.ndarray], path: Path) -> np.ndarray:
    """(K,) numbers of `wanted` in the ascending `ids`. `ValueError` names an annotation whose id nothing has."""
    found = np.searchsorted(ids, wanted)
    inside = np.minimum(found, max(len(ids) - 1, 0))
    strange = np.flatnonzero(ids[inside] != wanted) if len(ids) else np.arange(len(wanted))
    if len(strange):
        where, value = columns["id"][strange[0]], wanted[strange[0]]
        raise ValueError(f"{path}: annotation {where} is of {kind} {value}, which the file does not have")
    return found


def _short(entry: Any) -> str:
    text = repr(entry._asdict() if isinstance(entry, _Annotation) else entry)
    return text if len(text) <= 100 else f"{text[:97]}..."


def find_split(root: str | Path, split: str) -> tuple[Path, Path]:
    """(annotation file, image folder) of a split in a folder laid out as COCO's.

    The file is `annotations/instances_SPLIT.json`; `train` also finds the only `instances_train20NN.json`. The images
    lie in `SPLIT/` or `images/SPLIT/`. `ValueError` says what was looked for and what is there.
    """
    root = Path(root)
    folder = root / "annotations"
    exact = folder / f"instances_{split}.json"
    found = [exact] if exact.is_file() else sorted(folder.glob(f"instances_{split}20[0-9][0-9].json"))
    if len(found) != 1:
        there = ", ".join(sorted(file.name for file in folder.glob("instances_*.json"))) or "no instances_*.json"
        what = "no annotations" if not found else "more than one file of annotations"
        raise ValueError(f"{root} has {what} for the split {split!r}: looked for {exact}; {folder} holds {there}")
    name = found[0].stem.removeprefix("instances_")
    candidates = [root / name, root / "images" / name]
    for images in candidates:
        if images.is_dir():
            return found[0], images
    raise ValueError(f"no images for {found[0]}: looked for the folders {' and '.join(map(str, candidates))}")


class CocoImages(Dataset):
    """One split: samples `{"image": (3, H, W), "targets": (C,) float32, "size_targets": (3, C) bool}`, by image id.

    root, split: see `find_split`. transform: PIL image -> tensor (3, H, W). options: of `read_annotations`.

    Raises `ValueError` as `read_annotations` and `find_split` do, and where images are missing, naming the first. A
    broken image raises `UnreadableSample` when it is read.
    """

    def __init__(
        self, root: str | Path, split: str, transform: Callable[[Image.Image], Tensor], **options: Any
    ) -> None:
        self.root = Path(root)
        self.transform = transform
        path, self.folder = find_split(root, split)
        self.annotations = read_annotations(path, **options)
        self.classes = self.annotations.classes
        _check_files(self.folder, self.annotations)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = read_rgb(self.folder / self.annotations.file_names[index])
        return {
            "image": self.transform(photo),
            "targets": torch.from_numpy(self.annotations.targets[index]).float(),
            "size_targets": torch.from_numpy(self.annotations.size_targets[index]),
        }

    def path(self, index: int) -> str:
        """Relative to `root`, with `/`."""
        return (self.folder / self.annotations.file_names[index]).relative_to(self.root).as_posix()

    def label(self, index: int) -> list[str]:
        """The names of the classes in the image, in the classes' order."""
        return [self.classes[c] for c in np.flatnonzero(self.annotations.targets[index])]

    def object_sizes(self, index: int) -> list[float]:
        """The square root of the area of each object in the image, in pixels of the native photo."""
        return np.sqrt(self.annotations.areas[self.annotations.objects(index)]).tolist()


def _check_files(folder: Path, annotations: CocoAnnotations) -> None:
    """`ValueError` that names the first image that is not there; one listing a folder, no look at each file."""
    parents = {os.path.dirname(name) for name in annotations.file_names}
    there = {
        os.path.join(parent, entry.name)
        for parent in parents
        if (folder / parent).is_dir()
        for entry in os.scandir(folder / parent)
    }
    if missing := [name for name in annotations.file_names if name not in there]:
        raise ValueError(
            f"{folder} lacks {len(missing)} of the {len(annotations)} images of {annotations.path}, the first is "
            f"{missing[0]}: the download may be incomplete"
        )
