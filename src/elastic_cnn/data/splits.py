"""Which folder, tar file or list of a data set is which split, by its name; data that nobody divided."""

from collections.abc import Sequence
from pathlib import Path

from elastic_cnn.data.folders import ARCHIVES, SPLITS, check_folder, is_of_the_system
from elastic_cnn.data.listings import has_splits, is_listing
from elastic_cnn.data.remote import is_url
from elastic_cnn.text import listed, utf8

USUAL = tuple(name for group in SPLITS.values() for name in group)


def undivided(data: str) -> Path | None:
    """The folder of class folders, or the list, that is to be divided, where `data` has no `val`; else None.

    `ValueError` where a folder of `data` holds both `train` and `val`.
    """
    root = Path(data)
    if data.startswith(("hfds/", "wds/")) or is_url(data):
        return None
    if is_listing(root) and root.is_file():
        return None if has_splits(root) else root
    check_folder(root)
    there = _entries(root)
    if _named(root, there, SPLITS["val"]) is not None:
        return None
    train = _named(root, there, SPLITS["train"])
    if train is None:
        if _divided_below(root, there) is not None:
            raise _no_split(root, SPLITS["train"], there)
        return root
    return train if train.is_dir() or is_listing(train) else None


def split_place(data: Path, split: str, alone: bool = False) -> Path:
    """The folder, tar file or list of a split, whatever the case of its name; a list is its own.

    alone: a folder that holds no split at all is taken for the split itself. `ValueError` says what is there.
    """
    if is_listing(data) and data.is_file():
        return data
    check_folder(data)
    there = _entries(data)
    names = SPLITS.get(split, (split,))
    if len(twins := [entry for entry in there if entry.lower() in names and (data / entry).is_dir()]) > 1:
        names_there = " and as ".join(map(repr, map(utf8, twins)))
        raise ValueError(
            f"{utf8(str(data))} holds the split {split!r} as {names_there}: keep one of them, or give the other "
            "another name"
        )
    if (found := _named(data, there, names)) is not None:
        return found
    if alone and _named(data, there, USUAL) is None:
        return data
    raise _no_split(data, names, there)


def _no_split(data: Path, names: Sequence[str], there: Sequence[str]) -> ValueError:
    meant = _divided_near(data, there)
    packed = [entry for entry in there if entry.lower().startswith(tuple(f"{name}." for name in names))]
    packed = [entry for entry in packed if entry.lower().endswith(ARCHIVES)]
    remedy = "to train on photos that nobody divided, --split 0.2 holds out a fifth"
    if packed:
        remedy = f"unpack {utf8(packed[0])}"
    elif meant is not None:
        remedy = f"is {utf8(str(meant))} meant?"
    return ValueError(
        f"{utf8(str(data))} has no folder {' or '.join(map(repr, names))}: it should hold train/CLASS/IMAGE and "
        f"val/CLASS/IMAGE (it holds {listed(list(map(utf8, there))) if there else 'nothing'}); {remedy}"
    )


def _divided_near(data: Path, there: Sequence[str]) -> Path | None:
    """What a user may have meant: a folder of `data` that is divided, or the one around it where `data` is a split."""
    if data.name.lower() in USUAL and _is_divided(data.parent):
        return data.parent
    return _divided_below(data, there)


def _divided_below(data: Path, there: Sequence[str]) -> Path | None:
    """A folder of `data`, among the first, that holds `train` and `val`: what a user may have meant."""
    folders = (data / name for name in there[:8] if (data / name).is_dir())
    return next(filter(_is_divided, folders), None)


def _is_divided(folder: Path) -> bool:
    there = _entries(folder)
    return all(_named(folder, there, SPLITS[split]) is not None for split in ("train", "val"))


def _entries(folder: Path) -> list[str]:
    """The names in a folder, without the system's own."""
    return sorted(entry.name for entry in folder.iterdir() if not is_of_the_system(entry.name))


def _named(data: Path, there: Sequence[str], names: Sequence[str]) -> Path | None:
    """The first of `names` that is a folder, tar file or list of `data`; exactly so named ones first."""
    for name in names:
        wanted = (name, f"{name}.tar", f"{name}.csv")
        exact = [entry for entry in there if entry in wanted]
        for entry in exact or [entry for entry in there if entry.lower() in wanted]:
            if (data / entry).is_dir() or (data / entry).is_file():
                return data / entry
    return None
