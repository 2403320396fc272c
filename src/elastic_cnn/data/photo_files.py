"""Folders of photos without labels: finding their files, and drawing some of them."""

from collections.abc import Sequence
from pathlib import Path

import torch

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def find_photos(folder: str | Path) -> list[Path]:
    """The picture files below `folder`, sorted. `ValueError` where there is no folder or none in it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} of photos to calibrate on")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise ValueError(f"{folder} holds no photos ({', '.join(SUFFIXES)})")
    return found


def draw(photos: Sequence[Path], count: int, seed: int) -> tuple[list[Path], list[Path]]:
    """`count` photos at random to calibrate on, and as many others, where there are, to compare on."""
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist()
    return [photos[i] for i in order[:count]], [photos[i] for i in order[count : 2 * count]]
