"""Photos in files to pictures of their masks in files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from elastic_cnn.analysis.segment import segment_photo, tile_for_memory
from elastic_cnn.data.folders import find_pictures, is_of_the_system
from elastic_cnn.data.left_out import warn
from elastic_cnn.data.mask_pictures import colour_mask, overlay, save_picture, side_by_side, visible
from elastic_cnn.data.masks import Labels
from elastic_cnn.data.pixels import read_picture
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Picture, height_width
from elastic_cnn.files import naming, refuse_to_overwrite, refuse_unwritable_folder
from elastic_cnn.tasks.mask_labels import card_labels, reading_of
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.text import listed, utf8
from elastic_cnn.zoo.checkpoint import load_checkpoint


@dataclass(frozen=True)
class SegmentedPhoto:
    """mask: a palette PNG, its values are class numbers; side_by_side: photo, coloured mask and overlay.

    parts: {class: fraction of the photo}, the largest first. tile: side of the tiles, None where it was done whole.
    """

    photo: Path
    mask: Path
    side_by_side: Path
    parts: dict[str, float]
    tile: int | None


def find_photos(paths: Sequence[str | Path]) -> list[Path]:
    """The files among `paths`, and the pictures directly in the folders among them.

    `ValueError` for a path that is not there, a folder without pictures, and photos whose results would be one file.
    """
    photos: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise ValueError(f"there is no photo or folder {path}")
        photos += find_pictures(path, deep=False) if path.is_dir() else [path]
        if below := _folders_in(path):
            warn(f"{utf8(str(path))}: the folders in it are not read ({listed(below)}): name those that are meant")
    names: dict[str, Path] = {}
    for photo in photos:
        if photo.stem in names:
            raise ValueError(f"{names[photo.stem]} and {photo} would write the same files: do one of them at a time")
        names[photo.stem] = photo
    return photos


def _folders_in(path: Path) -> list[str]:
    there = sorted(entry.name for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
    return [utf8(name) for name in there if not is_of_the_system(name)]


def segment_files(
    checkpoint: str | Path,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    tile: int | None = None,
    max_bytes: int | None = None,
    strength: float = 0.55,
    overwrite: bool = False,
    device: str = "cpu",
) -> Iterator[SegmentedPhoto | UnreadableSample]:
    """Write `NAME_mask.png` and `NAME_side_by_side.png` into `out` for each photo, and yield what was done, in order.

    A photo that cannot be read is yielded as `UnreadableSample`, and the others are done. tile, max_bytes: do photos in
    tiles of that side, or of the largest side that keeps the computation within that memory (`tile_for_memory`).

    Raises `ValueError` for a checkpoint of another task, results that exist already, and a lack of memory.
    """
    if tile is not None and max_bytes is not None:
        raise ValueError("give the side of the tiles or a bound of memory, not both")
    if tile is not None and tile < 32:
        raise ValueError(f"tiles of {tile} pixels are too small: take 32 or more")
    photos, out = find_photos(paths), Path(out)
    targets = {p: (out / f"{p.stem}_mask.png", out / f"{p.stem}_side_by_side.png") for p in photos}
    if not overwrite:
        for target in (file for files in targets.values() for file in files):
            refuse_to_overwrite(target)
    refuse_unwritable_folder(out)
    network, card = load_checkpoint(checkpoint, device)
    if not task_spec(card.task).per_pixel:
        raise ValueError(f"{checkpoint} is a {card.task} network: masks need one trained for segmentation")
    labels, reading = card_labels(card)[0], reading_of(card.input)
    known: dict[int, int | None] = {}  # tile by longest side
    for photo in photos:
        try:
            picture = read_picture(photo, None, reading)
        except UnreadableSample as broken:
            yield broken
            continue
        side = tile
        if max_bytes is not None:
            longest = max(height_width(picture))
            if longest not in known:
                known[longest] = tile_for_memory(network, max_bytes, longest, reading.channels)
            side = known[longest]
        try:
            with naming(checkpoint):
                mask = segment_photo(network, picture, card.input, side)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            size = "{1} x {0}".format(*height_width(picture))
            raise ValueError(f"out of memory on {photo} ({size}): set --max-memory, or a smaller --tile") from error
        yield _write(photo, picture, mask, labels, targets[photo], strength, side)


def _write(
    photo: Path,
    picture: Picture,
    mask: np.ndarray,
    labels: Labels,
    targets: tuple[Path, Path],
    strength: float,
    tile: int | None,
) -> SegmentedPhoto:
    coloured = colour_mask(mask, labels.palette)
    save_picture(coloured, targets[0])
    seen = visible(picture) if isinstance(picture, torch.Tensor) else picture
    save_picture(side_by_side([seen, coloured, overlay(seen, mask, labels.palette, strength)]), targets[1])
    counts = np.bincount(mask.ravel(), minlength=len(labels.classes)) / mask.size
    order = [number for number in np.argsort(-counts) if counts[number] > 0]
    parts = {labels.classes[number]: float(counts[number]) for number in order}
    return SegmentedPhoto(
        photo, *targets, parts, tile if tile is not None and tile < max(height_width(picture)) else None
    )
