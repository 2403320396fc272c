"""COCO's images and instance annotations as multi-label samples with object sizes.

Reads the JSON that COCO ships (2014, 2017) and files of the same layout, without pycocotools. An image is positive for
a class if it holds an object of it, and for (class, size) if it holds one of that size, by `area` in the photo's native
pixels: small < 32^2 <= medium < 96^2 <= large. Images without an annotation are kept: all their targets are 0.

Crowds (`iscrowd` 1, one region around many objects) count like objects, with the area of their region, as in the
paper's code; `crowds="drop"` leaves them out.

What tools write beside the letter of the format is read where it has one meaning: no `area` (its box's, with a notice),
`iscrowd` null or true, no `id`, whole numbers as 3.0. Categories are matched by name.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from elastic_cnn.data.coco_json import Annotation, entries_of, read_json, short
from elastic_cnn.text import listed, wrong_class_name

SIZE_NAMES = ("small", "medium", "large")
AREA_BOUNDS = (32**2, 96**2)  # square pixels of the native photo
MOST = 2**62  # of ids


@dataclass(frozen=True)
class CocoAnnotations:
    """The annotations of N images with K objects of C classes.

    path: the JSON file. classes: names in the order of their ids. image_ids: (N,) ascending. file_names: N.
    image_of, class_of: (K,) the number (not the id) of an object's image, ascending, and of its class.
    areas: (K,) square pixels of the native photo. dropped: why objects were left out -> how many.
    notices: what was read beside the letter of the format, a line each, for people.
    """

    path: Path
    classes: tuple[str, ...]
    image_ids: np.ndarray
    file_names: list[str]
    image_of: np.ndarray
    class_of: np.ndarray
    areas: np.ndarray
    dropped: dict[str, int]
    notices: tuple[str, ...] = field(default=())

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

    def require_objects(self) -> None:
        """`ValueError` where there is nothing to learn from."""
        if len(self.unused) == len(self.classes):
            raise ValueError(f"{self.path} has no object of any class: there is nothing to learn")

    @property
    def unused(self) -> list[str]:
        """The classes without an object."""
        there = set(self.class_of.tolist())
        return [name for number, name in enumerate(self.classes) if number not in there]

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
    classes: Sequence[str] | None = None,
    others: Literal["error", "drop"] = "error",
) -> CocoAnnotations:
    """Read an `instances_*.json`. 118,000 images with 860,000 polygons take about 6 s and 1 GB.

    exclude: names of categories to leave out, with their objects. crowds: see the module. zero_area: what to do with
    objects of area 0 (COCO's own train2017 has a few): refuse the file, keep them as small, or drop them.
    classes: the names to number by (those of training, or of a checkpoint), by default the file's in the order of their
    ids. others: what to do with objects of a category that is not among `classes`.

    Raises `ValueError`, naming the file and the entry, for JSON that is broken or of another layout, ids that are
    repeated or that nothing has, names that `exclude` alone knows, objects of categories that are not among `classes`,
    and areas that are negative or, by default, 0.
    """
    path = Path(path)
    content = read_json(path)
    images, categories, annotations = (
        entries_of(content, key, path) for key in ("images", "categories", "annotations")
    )
    image_ids, file_names = _identify(images, "file_name", "image", path)
    category_ids, names = _identify(categories, "name", "category", path)
    if wrong := wrong_class_name(names):
        raise ValueError(f"{path}: {wrong}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path}: two categories are named {repeated[0]!r}")
    notices: list[str] = []
    columns = _columns(annotations, path, notices)
    image_of = _look_up(columns["image_id"], image_ids, "image", annotations, path)
    category_of = _look_up(columns["category_id"], category_ids, "category", annotations, path)
    if classes is None:
        classes = _own_classes(names, exclude, path)
    else:
        used = {names[number] for number in np.unique(category_of).tolist()}
        _match(names, used - set(exclude), classes, others, path, notices)

    new_number = {name: number for number, name in enumerate(classes)}
    class_of = np.array([-1 if name in exclude else new_number.get(name, -1) for name in names], np.int64)
    kept = class_of[category_of] >= 0 if len(names) else np.zeros(0, bool)
    areas = columns["area"]
    kept, dropped = _drop(kept, columns, annotations, image_ids[image_of], crowds, zero_area, path)
    order = np.flatnonzero(kept)[np.argsort(image_of[kept], kind="stable")]
    objects = (image_of[order], class_of[category_of[order]], areas[order])
    counted = {reason: count for reason, count in dropped.items() if count}
    return CocoAnnotations(path, tuple(classes), image_ids, file_names, *objects, counted, tuple(notices))


def _own_classes(names: list[str], exclude: Sequence[str], path: Path) -> list[str]:
    """The file's own categories but for those that are left out."""
    if unknown := sorted(set(exclude) - set(names)):
        raise ValueError(f"{path} has no category {unknown[0]!r} to exclude; it has {', '.join(names)}")
    classes = [name for name in names if name not in exclude]
    if not classes:
        raise ValueError(f"{path}: all {len(names)} categories are excluded")
    return classes


def _match(
    names: list[str], used: set[str], classes: Sequence[str], others: str, path: Path, notices: list[str]
) -> None:
    """Compare the file's categories with the classes to number by. `ValueError` as `read_annotations` says."""
    if not set(names) & set(classes):
        raise ValueError(
            f"{path} has none of the classes to choose from ({listed(classes)}); its categories are {listed(names)}"
        )
    if strange := sorted(used - set(classes)):
        if others == "error":
            raise ValueError(
                f"{path} has objects of {listed(strange)}, which the classes to choose from lack ({listed(classes)}): "
                "exclude them (options.exclude), or train with them"
            )
        notices.append(f"{path}: objects of {listed(strange)} are left out, the network does not know these classes")
    if lacking := [name for name in classes if name not in names]:
        notices.append(f"{path} has no category {listed(lacking)}: no image counts as one of it")


def _drop(
    kept: np.ndarray, columns: dict[str, np.ndarray], annotations: list[Any], image_ids: np.ndarray,
    crowds: str, zero_area: str, path: Path,
) -> tuple[np.ndarray, dict[str, int]]:  # fmt: skip
    """(which objects stay (K,), {why others were left out: how many}). image_ids: (K,) of the objects."""
    areas, zero = columns["area"], columns["area"] == 0
    if bad := np.flatnonzero(~np.isfinite(areas) | (areas < 0)).tolist():
        raise ValueError(f"{path}: {_called(annotations, bad[0])} has the area {areas[bad[0]]}")
    if zero_area == "error" and (bad := np.flatnonzero(zero & kept).tolist()):
        raise ValueError(
            f"{path}: {_called(annotations, bad[0])} of image {image_ids[bad[0]]} has the area 0 ({len(bad)} such): "
            "mend the file, or choose zero_area `drop` or `keep` (as a small object)"
        )
    dropped = {"category excluded": int((~kept).sum())}
    for reason, of, policy in (("crowd", columns["iscrowd"] == 1, crowds), ("area 0", zero, zero_area)):
        if policy == "drop":
            dropped[reason] = int((of & kept).sum())
            kept = kept & ~of
    return kept, dropped


def _identify(entries: list[Any], value: str, kind: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """(ids ascending, the entries' `value` in this order) of images or categories."""
    found: list[tuple[int, str]] = []
    for number, entry in enumerate(entries):
        key = _whole(entry.get("id")) if isinstance(entry, dict) else None
        if key is None or not isinstance(entry.get(value), str):
            raise ValueError(f"{path}: {kind} number {number} lacks a whole `id` or a `{value}`: {short(entry)}")
        found.append((key, entry[value]))
    found.sort(key=lambda pair: pair[0])
    ids = np.array([key for key, _ in found], np.int64)
    if len(repeated := ids[1:][np.diff(ids) == 0]):
        raise ValueError(f"{path}: the {kind} id {repeated[0]} is given twice")
    return ids, [text for _, text in found]


def _whole(value: Any) -> int | None:
    """A whole number of 64 bits, also where it is written as 3.0; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and abs(value) <= MOST else None


def _flag(value: Any) -> int | None:
    """`iscrowd`: 0 where there is none, 1 for true."""
    return int(value) if isinstance(value, bool) else 0 if value is None else _whole(value)


def _number(value: Any) -> float | None:
    return float(value) if type(value) is float or (type(value) is int and abs(value) <= MOST) else None


FIELDS: dict[str, tuple[Callable[[Any], Any], set[type], str, Any]] = {
    "image_id": (_whole, {int}, "whole number", np.int64),
    "category_id": (_whole, {int}, "whole number", np.int64),
    "area": (_number, {int, float}, "number", np.float64),
    "iscrowd": (_flag, {int}, "0 or 1", np.int64),
}


def _columns(annotations: list[Any], path: Path, notices: list[str]) -> dict[str, np.ndarray]:
    """{field: (K,)} of the annotations, with their types checked."""
    for number, annotation in enumerate(annotations):
        if type(annotation) is not Annotation:
            raise ValueError(f"{path}: annotation number {number} lacks `image_id`: {short(annotation)}")
    columns = {}
    for name, (convert, usual, wanted, kind) in FIELDS.items():
        position = Annotation._fields.index(name)
        values = [annotation[position] for annotation in annotations]
        if name == "area":
            values = _areas_of_boxes(values, annotations, path, notices)
        try:
            if not set(map(type, values)) <= usual:
                raise OverflowError  # as where a number is too large
            columns[name] = np.array(values, kind)
        except OverflowError:
            converted = list(map(convert, values))
            if None in converted:
                number = converted.index(None)
                raise ValueError(
                    f"{path}: `{name}` of annotation number {number} is no {wanted}: {short(annotations[number])}"
                ) from None
            columns[name] = np.array(converted, kind)
    return columns


def _areas_of_boxes(values: list[Any], annotations: list[Any], path: Path, notices: list[str]) -> list[Any]:
    """The areas, those of boxes where an annotation has none."""
    lacking = [number for number, value in enumerate(values) if value is None]
    for number in lacking:
        box = annotations[number].bbox
        sides = [_number(side) for side in box[2:]] if isinstance(box, list) and len(box) == 4 else [None]
        if None in sides:
            raise ValueError(
                f"{path}: annotation number {number} has no `area`, and no `bbox` of four numbers to take it from: "
                f"{short(annotations[number])}"
            )
        values[number] = sides[0] * sides[1]  # type: ignore[operator]
    if lacking:
        notices.append(
            f"{path}: {len(lacking)} of {len(values)} objects have no `area`: that of their box decides on their size"
        )
    return values


def _look_up(wanted: np.ndarray, ids: np.ndarray, kind: str, annotations: list[Any], path: Path) -> np.ndarray:
    """(K,) numbers of `wanted` in the ascending `ids`. `ValueError` names an annotation whose id nothing has."""
    found = np.searchsorted(ids, wanted)
    inside = np.minimum(found, max(len(ids) - 1, 0))
    strange = np.flatnonzero(ids[inside] != wanted) if len(ids) else np.arange(len(wanted))
    if len(strange):
        called, value = _called(annotations, int(strange[0])), wanted[strange[0]]
        raise ValueError(f"{path}: {called} is of {kind} {value}, which the file does not have")
    return found


def _called(annotations: list[Any], number: int) -> str:
    """An annotation by its id, or by its place where it has none."""
    own = annotations[number].id
    return f"annotation number {number}" if own is None else f"annotation {own}"
