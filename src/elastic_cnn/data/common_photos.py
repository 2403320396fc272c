"""Photos that are tested on and trained on: a link, a list or a copied path makes one split of another."""

import os
from collections.abc import Callable, Iterable, Sequence

from elastic_cnn.data.image_folder import ImageFolder

File = str | os.PathLike[str]


def common_photos(train: ImageFolder, val: ImageFolder) -> tuple[str, ...]:
    """`common_files` of the samples' files; none for shards and the like."""
    return _common(lambda: _files(train), lambda: _files(val), len(val))


def common_files(train: Sequence[File], val: Sequence[File]) -> tuple[str, ...]:
    """A notice where files of `val` are files of `train`, by real paths."""
    return _common(lambda: train, lambda: val, len(val))


def _common(train: Callable[[], Iterable[File]], val: Callable[[], Iterable[File]], count: int) -> tuple[str, ...]:
    """The files are asked for twice each, so that a million paths need not be held at once."""
    places = [_real_folders(files()) for files in (train, val)]
    shared = set(places[0].values()) & set(places[1].values())
    if not shared:
        return ()
    inside = [_inside(files(), folders, shared) for files, folders in zip((train, val), places, strict=True)]
    common = len(inside[0] & inside[1])
    if not common:
        return ()
    return (f"{common} of the {count} photos of val are photos of train too: the scores say nothing about new photos",)


def _files(samples: ImageFolder) -> Iterable[str]:
    if getattr(samples.reader, "arrangement", None) is None or not hasattr(samples.reader, "root"):
        return ()
    return (samples.reader.filename(index) for index in range(len(samples)))


def _real_folders(files: Iterable[File]) -> dict[str, str]:
    """Each folder that holds a photo, and its real path."""
    return {folder: os.path.realpath(folder) for folder in {os.path.dirname(file) for file in files}}


def _inside(files: Iterable[File], folders: dict[str, str], shared: set[str]) -> set[str]:
    """The real paths of the photos that lie in folders of `shared`."""
    paths = map(os.path.split, files)
    return {os.path.join(folders[folder], name) for folder, name in paths if folders[folder] in shared}
