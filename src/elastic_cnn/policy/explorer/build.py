"""Building the explorer: a policy table and its photos to one folder that opens by double click."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elastic_cnn.files import refuse_to_overwrite, refuse_unwritable_folder
from elastic_cnn.policy.explorer.columns import (
    MOST_ROWS,
    block_summary,
    browser_columns,
    category_of,
    encode,
    present_classes,
    script,
)
from elastic_cnn.policy.explorer.layout import Layout, lay_out
from elastic_cnn.policy.explorer.sprites import (
    COLUMNS,
    PER_SPRITE,
    PhotoOpener,
    PictureOptions,
    photos_below,
    write_pictures,
)
from elastic_cnn.policy.mask_places import KINDS, MASKS, mask_file
from elastic_cnn.policy.table import PolicyTable, has_lists, policy_file, read_policy

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

STATIC = ("index.html", "explorer.css", "icon.svg")
SCRIPTS = ("live", "table", "columns", "scores", "paths")  # of the data folder
MAPS_OF = ("auto", "policy", "features")
MARKER = Path("data") / "table.js"  # what tells an explorer's folder from another


@dataclass(frozen=True)
class ExplorerOptions:
    """photos: folder that the table's paths are relative to, in place of the table's own. map: `tsne`, `pca` or `auto`.
    map_of: what the map is made of: `policy`, `features`, or `auto`, the policy where there is one. most: photos that
    are shown; of a larger table a random sample is, the same each time. pictures: sizes and workers."""

    photos: str | None = None
    map: str = "auto"
    map_of: str = "auto"
    most: int = MOST_ROWS
    pictures: PictureOptions = field(default_factory=PictureOptions)


@dataclass(frozen=True)
class ExplorerReport:
    """index: the page to open. missing: {reason: photos that could not be shown}. bytes: of thumbnails and pictures.
    sampled_of: rows of the table, where a sample of them is shown."""

    index: Path
    rows: int
    missing: dict[str, int]
    bytes: int
    map: str
    sampled_of: int | None = None


def build_explorer(
    policy: str | Path,
    out: str | Path,
    options: ExplorerOptions | None = None,
    *,
    overwrite: bool = False,
    open_photo: PhotoOpener | None = None,
    progress: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = lambda line: None,
) -> ExplorerReport:
    """Write the explorer of a policy table into the folder `out`, whole or not at all.

    open_photo: opens the photo of a row, where the photos are no files below a folder. progress: told of rows done.

    Raises `ValueError` where the table is broken or empty, `out` exists (`overwrite`
    replaces an explorer there, and nothing else), or no photo at all can be shown.
    """
    options = options or ExplorerOptions()
    out = check_out(Path(out), overwrite)
    table, sampled_of = _sampled(read_policy(policy), options.most, say)
    if not len(table):
        raise ValueError(f"{policy} has no rows: collect it anew, from a folder that holds photos")
    vectors, what = _vectors(table, options.map_of)
    paths = table.column("path")
    root = options.photos or table.info.data_root
    if open_photo is None:
        if not Path(root).is_dir():
            raise ValueError(f"no folder {root!r} of photos: name the folder that the table's paths lie in by --photos")
        open_photo = photos_below(root, paths)
    layout = lay_out(vectors, options.map, say, what)
    columns, names = browser_columns(table)
    columns["slot"] = _slots(columns, table.scores)
    with _whole_folder(out) as folder:
        say(f"writing thumbnails of {len(table)} photos")
        pictures = write_pictures(folder, columns["slot"], open_photo, options.pictures, progress)
        if sum(pictures.missing.values()) == len(table):
            reasons = ", ".join(f"{reason} ({count})" for reason, count in pictures.missing.items())
            raise ValueError(f"none of the photos of {policy} can be shown from {root}: {reasons}; see --photos")
        columns["has_picture"], columns["copies"] = pictures.has_picture, pictures.copies
        columns["has_masks"] = copy_masks(Path(policy), folder, table.column("id"))
        columns["x"], columns["y"] = layout.coordinates[:, 0], layout.coordinates[:, 1]
        about = _about(table, columns, names.all, layout, options) | {"sampled_of": sampled_of}
        write_static(folder)
        write_data(folder, about, {name: encode(column) for name, column in columns.items()}, table, paths)
    return ExplorerReport(
        out / "index.html", len(table), dict(pictures.missing), pictures.bytes, layout.method, sampled_of
    )


def copy_masks(policy: Path, folder: Path, ids: Sequence[int]) -> np.ndarray:
    """Copy the masks beside a table into `folder/masks`, by row. Returns (N,) uint8: which rows have them."""
    there, has_masks = policy_file(policy).parent / MASKS, np.zeros(len(ids), np.uint8)
    for row, number in enumerate(ids) if there.is_dir() else ():
        files = [(mask_file(there, kind, number), mask_file(folder / MASKS, kind, row)) for kind in KINDS]
        if all(source.is_file() for source, _ in files):
            for source, target in files:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            has_masks[row] = 1
    return has_masks


def _sampled(table: PolicyTable, most: int, say: Callable[[str], None]) -> tuple[PolicyTable, int | None]:
    """The table, or `most` of its rows drawn at random, in their order, and of how many."""
    if not 1 <= most <= MOST_ROWS:
        raise ValueError(f"the explorer shows 1 to {MOST_ROWS:,} photos, not {most}")
    count = len(table)
    if count <= most:
        return table, None
    say(f"the table has {count:,} rows: a random sample of {most:,} is shown")
    rows = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
    return table.take(rows), count


def _vectors(table: PolicyTable, map_of: str) -> tuple[np.ndarray, str]:
    """(N, D) that the map is made of, and their name."""
    if map_of not in MAPS_OF:
        raise ValueError(f"a map is of {', '.join(MAPS_OF)}, not {map_of!r}")
    if map_of == "policy" and not table.info.blocks:
        raise ValueError("this table is of a network without elastic blocks: there is a map of its features alone")
    if map_of == "features" or not table.info.blocks:
        return table.features, "features"
    return table.scores, "policies"


def write_static(folder: Path) -> None:
    """Copy the page, its style and its scripts."""
    for resource in static_files():
        (folder / resource.name).write_bytes(resource.read_bytes())


def static_files() -> "list[Traversable]":
    """The page's own files, as they lie in the package."""
    static = files("elastic_cnn.policy.explorer") / "static"
    return [entry for entry in static.iterdir() if entry.name in STATIC or entry.name.endswith(".js")]


def write_data(folder: Path, about: dict[str, Any], columns: dict[str, Any], table: PolicyTable, paths: list) -> None:
    """The data as classic scripts."""
    _write_scripts(folder, {"table": about, "columns": columns, "scores": encode(table.scores), "paths": paths})


def _write_scripts(folder: Path, values: dict[str, Any]) -> None:
    """The files of the data folder; nothing in those that have no value."""
    (folder / "data").mkdir(exist_ok=True)
    for name in SCRIPTS:
        (folder / "data" / f"{name}.js").write_text(script(name, values.get(name)), encoding="ascii")


def _about(
    table: PolicyTable, columns: dict[str, np.ndarray], names: list[str], layout: Layout, options: ExplorerOptions
) -> dict[str, Any]:
    classes, has_labels = present_classes(columns)
    low, high, *means = (0, 1, 0, 1)
    if table.info.blocks:
        low, high = np.percentile(table.scores, [1, 99])
        means = list(np.percentile(table.scores.mean(axis=1), [1, 99]))
    return {
        "version": 1,
        "rows": len(table),
        "network": table.info.network,
        "task": table.info.task,
        "names": names,
        "classes": classes,
        "has_labels": has_labels,
        "has_outcomes": bool((columns["correct"] < 2).any()),
        "has_base": table.has_base,
        "has_top": table.info.top,
        "several": has_lists(table.info.task),
        "palette": [list(colour) for colour in table.info.palette],
        "feature_width": 0 if table.info.blocks else table.info.features,
        "size_unit": table.info.size_unit,
        "blocks": block_summary(table),
        "range": {"low": float(low), "high": float(high)},
        "mean_range": {"low": float(means[0]), "high": float(means[1])},
        "map": {"method": layout.method, "note": layout.note},
        "thumbnails": {"side": options.pictures.thumbnail, "columns": COLUMNS, "per_sprite": PER_SPRITE},
    }


def _slots(columns: dict[str, np.ndarray], scores: np.ndarray) -> np.ndarray:
    """(N,) uint32: places of the thumbnails, by category and then mean score (of a plain network: confidence), so that
    common views load few sprites."""
    second = scores.mean(axis=1) if scores.shape[1] else np.nan_to_num(columns["confidence"])
    order = np.lexsort([second, category_of(columns)])
    slots = np.empty(len(order), np.uint32)
    slots[order] = np.arange(len(order), dtype=np.uint32)
    return slots


def check_out(out: Path, overwrite: bool) -> Path:
    """`out`, if an explorer may be written there; `overwrite` replaces one. Else `ValueError`."""
    refuse_unwritable_folder(out.parent if out.is_dir() else out)  # it is put in its place whole
    if overwrite and out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise ValueError(f"{out} is no explorer's folder, so it is not replaced: choose another folder")
        return out
    there = (out / MARKER).is_file()
    return refuse_to_overwrite(
        out,
        f"open {out / 'index.html'}, or pass --overwrite to make it anew"
        if there
        else "choose another folder, or pass --overwrite",
    )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, put in its place when the block ends without an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as holder:
        folder = Path(holder) / "new"
        folder.mkdir()
        yield folder
        if out.exists():
            os.replace(out, Path(holder) / "old")
        os.replace(folder, out)


def live_folder(folder: Path) -> Path:
    """An explorer without a table, for a page that only takes photos. Returns `folder`."""
    write_static(folder)
    _write_scripts(folder, {})
    return folder
