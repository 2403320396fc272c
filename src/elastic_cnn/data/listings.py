"""Photos listed in a CSV file: a row a photo, with its path, its class, and its split where the file says."""

import csv
import io
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elastic_cnn.data.folders import SPLITS, Arrangement, FolderReader, numbers, same_name
from elastic_cnn.data.picture_kinds import picture_endings
from elastic_cnn.files import write_csv
from elastic_cnn.text import file_name, listed, printable, utf8

COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "photo", "id", "image_id"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset", "partition"),
}


@dataclass(frozen=True)
class Row:
    """A photo of a list: its path as the list has it, its class ("" for none), its split ("" for none)."""

    path: str
    label: str
    split: str


def is_listing(path: str | Path) -> bool:
    """Whether a name means a list of photos, by its ending."""
    return str(path).lower().endswith(".csv")


def read_rows(path: Path, labels: str = "needed") -> list[Row]:
    """The rows of a list. labels: as of `folders.arrange`; a column of classes must be there where they are needed, and
    may be empty from top to bottom where they are not.

    `ValueError` names the file, and the line, where columns or values are missing or too many, a photo is there twice
    with different classes, or it is in several splits.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: save it as CSV in UTF-8") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    head, _, rest = text.partition("\n")
    said = re.fullmatch(r"sep=(.)\r?", head)  # Excel's own first line
    if said:
        head, text = rest.partition("\n")[0], rest
    separator = said[1] if said else max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restval="")
    rows, lines = list[Row](), list[int]()
    try:
        columns = _columns(path, reader.fieldnames or (), labels)
        for entry in reader:
            line = reader.line_num + (said is not None)
            if any(entry.pop(None, None) or ()):  # cells beyond the columns, that are not empty
                raise ValueError(
                    f"{path}, line {line}: it has more cells than the first line names: a value that holds "
                    f"{separator!r} needs quotes around it"
                )
            row = Row(*((entry[columns[kind]] if kind in columns else "") or "" for kind in COLUMNS))
            rows.append(Row(row.path.strip(), same_name(row.label.strip()), row.split.strip()))
            lines.append(line)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path} lists no photos")
    if labels != "needed" and not any(row.label for row in rows):
        columns.pop("label", None)
    seen = dict[str, Row]()
    for line, row in zip(lines, rows, strict=True):
        _check(path, line, row, columns, seen)
    return rows


def _columns(path: Path, header: Sequence[str], labels: str) -> dict[str, str]:
    """{kind: the file's own name of the column}."""
    own = {name.strip().lower(): name for name in header if name}
    names = [name.strip().lower() for name in header if name]
    if twice := [name for name in own if names.count(name) > 1 and name in sum(COLUMNS.values(), ())]:
        raise ValueError(f"{path} has several columns {twice[0]!r}: keep one of them")
    found = {kind: own[name] for kind, names in COLUMNS.items() if (name := next(filter(own.__contains__, names), ""))}
    for kind in ("path", "label") if labels == "needed" else ("path",):
        if kind not in found:
            raise ValueError(
                f"{path} has no column {kind!r} (it has {listed(list(header)) or 'none'}): its first line should name "
                "the columns, as in path,label or path,label,split"
            )
    return found


def _check(path: Path, line: int, row: Row, columns: dict[str, str], seen: dict[str, Row]) -> None:
    for kind in columns:
        if not getattr(row, kind):
            raise ValueError(f"{path}, line {line}: the {kind} is missing")
    first = seen.setdefault(posixpath.normpath(row.path), row)
    if first is not row:
        what = "twice"
        if first.label != row.label:
            what = f"as {printable(first.label)!r} and as {printable(row.label)!r}"
        elif first.split != row.split:
            what = f"in {printable(first.split)!r} and in {printable(row.split)!r}"
        raise ValueError(f"{path}, line {line}: {printable(row.path)} is listed {what}: keep one of the rows")


def has_splits(path: Path) -> bool:
    """Whether a list says which split its photos are of."""
    return any(row.split for row in read_rows(path, "optional"))


def read_listing(path: Path, names: Sequence[str] | None, labels: str = "needed") -> FolderReader:
    """The listed photos and their classes.

    names: of the split that is asked for, in any case of letters; None, or a list without splits: all photos. Paths are
    relative to the list's folder; where the first is not there, to a folder of the list's own name or `images` beside
    it; they may lack the picture's ending, or be written with `\\`. `ValueError` as `read_rows`, and for a split
    that no row is of.
    """
    rows = read_rows(path, labels)
    unused = _unused(path, rows, names)
    if names is not None and any(row.split for row in rows):
        chosen = [row for row in rows if row.split.lower() in names]
        if not chosen:
            there = sorted({row.split for row in rows})
            raise ValueError(f"{path} lists no photo of the split {names[0]!r}; its splits are {listed(there)}")
        rows = chosen
    folder, ending, written = _place(path, rows[0].path)
    files = [os.path.abspath(folder / (written(row.path) + ending)) for row in rows]
    root = os.path.commonpath([os.path.dirname(file) for file in files])
    found = Arrangement(
        tuple(os.path.relpath(file, root).replace(os.sep, "/") for file in files),
        tuple("" if labels == "unused" else row.label for row in rows),
    )
    here = os.path.relpath(root)
    return FolderReader(root if here.startswith(os.pardir) else here, found, *numbers(found), unused)


def _unused(path: Path, rows: Sequence[Row], names: Sequence[str] | None) -> tuple[str, ...]:
    """A notice about rows of splits that nothing asks for by themselves, as of a misspelt one."""
    known = {name for group in SPLITS.values() for name in group} | set(names or ())
    others = Counter(row.split for row in rows if row.split and row.split.lower() not in known)
    if names is None or not others:
        return ()
    return (f"{path}: {others.total()} rows are of other splits ({listed(sorted(others))}) and are not used",)


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _place(listing: Path, first: str) -> tuple[Path, str, Callable[[str], str]]:
    """The folder that the paths of a list are relative to, what their names lack, and how they are written."""
    folders = [listing.parent, listing.parent / listing.stem, listing.parent / "images"]
    for written in (file_name, *([_with_slashes] if "\\" in first else [])):
        for folder in folders:
            for ending in ("", *picture_endings()):
                if os.path.lexists(folder / (written(first) + ending)):
                    return folder, ending, written
    raise ValueError(
        f"{listing}: there is no {printable(first)} in {', '.join(utf8(str(folder)) for folder in folders)}: paths "
        "should be relative to the list's folder"
    )


def write_listing(path: Path, rows: Sequence[Row]) -> None:
    """A list that `read_listing` reads: absolute paths become relative to its folder."""
    here = os.path.abspath(path.parent)
    places = (os.path.relpath(row.path, here) if os.path.isabs(row.path) else row.path for row in rows)
    cells = ((utf8(place.replace(os.sep, "/")), row.label, row.split) for place, row in zip(places, rows, strict=True))
    write_csv(path, COLUMNS, cells)
