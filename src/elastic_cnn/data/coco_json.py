"""The JSON of COCO's annotations, without the polygons that are most of it."""

import gc
import json
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from elastic_cnn.text import repeated_key

# Polygons are most of a file and of no use here; in valid JSON this pattern matches nothing but them.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[-+0-9eE.,\s\[\]]*\]')


class Annotation(NamedTuple):
    """What is kept of an annotation, as it stands in the file; None for what it lacks."""

    image_id: Any
    category_id: Any
    area: Any
    iscrowd: Any
    id: Any
    bbox: Any  # kept where there is no area


def read_json(path: Path) -> dict[str, Any]:
    """The top-level mapping, its annotations as `Annotation`, without polygons. `ValueError` where it is broken."""
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
    """What is kept of a JSON object: of annotations five values or six, of others all but run-length masks."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(repeated_key(pairs))
    if "image_id" not in values:
        values.pop("counts", None)
        return values
    get = values.get
    area = get("area")
    return Annotation(
        values["image_id"], get("category_id"), area, get("iscrowd"), get("id"), get("bbox") if area is None else None
    )


def entries_of(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(
            f"{path} has no list {key!r}: an instances file of COCO has images, annotations and categories"
        )
    return entries


def short(entry: Any) -> str:
    text = repr(entry._asdict() if isinstance(entry, Annotation) else entry)
    return text if len(text) <= 100 else f"{text[:97]}..."
