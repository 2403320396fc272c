"""Photos that are tested on and trained on: a link, a list or a copied path makes one split of another."""

import os
from collections.abc import Mapping

from elastic_cnn.data.image_folder import ImageFolder


def common_photos(train: ImageFolder, val: ImageFolder) -> tuple[str, ...]:
    """A notice where files of `val` are files of `train`, by real paths; none for shards and the like."""
    places = [_real_folders(samples) for samples in (train, val)]
    shared = set(places[0].values()) & set(places[1].values())
    if not shared:
        return ()
    files = [_files(samples, folders, shared) for samples, folders in zip((train, val), places, strict=True)]
    common = len(files[0] & files[1])
    if not common:
        return ()
    return (
        f"{common} of the {len(val)} photos of val are photos of train too: the scores say nothing about new photos",
    )


def _real_folders(samples: ImageFolder) -> Mapping[str, str]:
    """Each folder that holds a photo, and its real path."""
    if getattr(samples.reader, "arrangement", None) is None or not hasattr(samples.reader, "root"):
        return {}
    folders = {os.path.dirname(samples.reader.filename(index)) for index in range(len(samples))}
    return {folder: os.path.realpath(folder) for folder in folders}


def _files(samples: ImageFolder, folders: Mapping[str, str], shared: set[str]) -> set[str]:
    """The real paths of the photos that lie in folders of `shared`."""
    paths = (os.path.split(samples.reader.filename(index)) for index in range(len(samples)))
    return {os.path.join(folders[folder], name) for folder, name in paths if folders[folder] in shared}
