"""Hashes that tell one collection from another, so that a run goes on only with parts of its own."""

import hashlib
from pathlib import Path

from elastic_cnn.data.sampler import Samples


def of_file(path: str | Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def of_photos(photos: Samples) -> str:
    """Of the photos' paths, in order."""
    digest = hashlib.sha256()
    for index in range(len(photos)):
        digest.update(photos.path(index).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
