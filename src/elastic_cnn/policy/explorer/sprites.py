"""Thumbnails in WebP sprites (a few to a file, so that any order of photos loads little), and larger pictures."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, features

from elastic_cnn.data.picture_kinds import BadSize
from elastic_cnn.data.pixels import opened, to_rgb, upright
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.policy.explorer.copies import SIDE, copy_groups, look
from elastic_cnn.text import file_name

COLUMNS = 4
PER_SPRITE = COLUMNS * COLUMNS
GROUND = (128, 132, 140)  # where a photo cannot be read
MOST_PIXELS = 100_000_000

PhotoOpener = Callable[[int, int], Image.Image]  # (row, side that suffices in pixels) -> RGB; raises `PhotoMissing`


class PhotoMissing(OSError):
    """A row's photo cannot be shown; the message says why, without naming the photo."""


@dataclass(frozen=True)
class PictureOptions:
    """thumbnail: side of the square thumbnails in pixels. picture: longest side of the detail view's pictures, 0 for
    none. workers: threads. quality: of WebP, 0..100."""

    thumbnail: int = 112
    picture: int = 640
    workers: int = 2
    quality: int = 78

    def __post_init__(self) -> None:
        if not 32 <= self.thumbnail <= 256:
            raise ValueError(f"thumbnails are 32 to 256 pixels wide, not {self.thumbnail}")
        if self.picture and not 128 <= self.picture <= 4096:
            raise ValueError(f"pictures are 128 to 4096 pixels wide, or 0 for none, not {self.picture}")
        if self.workers < 1:
            raise ValueError(f"at least one worker is needed, not {self.workers}")


@dataclass(frozen=True)
class PictureReport:
    """has_picture: (N,) uint8. copies: (N,) uint32, as `copy_groups` numbers them. missing: {reason: photos that could
    not be shown}. bytes: written to disk."""

    has_picture: np.ndarray
    copies: np.ndarray
    missing: Counter[str]
    bytes: int


def numbered(folder: Path, number: int) -> Path:
    """The file of a number, a thousand to a folder, as store.js names it too."""
    return folder / f"{number // 1000:04d}" / f"{number:07d}.webp"


def photos_below(root: str | Path, paths: Sequence[str]) -> PhotoOpener:
    """Photos by the paths of a table's rows below `root`. Paths that lead out of it, by `..` or a link, are refused.

    Tables hold names that are not UTF-8 with their bytes as \\xNN.
    """
    top = Path(root).resolve()

    def open_photo(row: int, side: int) -> Image.Image:
        for name in (paths[row], file_name(paths[row])):
            try:
                path = (top / name).resolve()
                is_file = path.is_file()
            except (OSError, ValueError, RuntimeError) as error:  # a null byte, too long a name, a loop of links
                raise PhotoMissing("no usable path") from error
            if not path.is_relative_to(top):
                raise PhotoMissing("path leads out of the data's folder")
            if is_file:
                return read_reduced(path, side)
        raise PhotoMissing("no such file")

    return open_photo


def read_reduced(path: Path, side: int) -> Image.Image:
    """The picture in a file, upright, RGB, at least about `side` pixels where it has them: JPEG decodes at a fraction.

    `PhotoMissing` where the file is broken, holds more than 100 megapixels or is far too long for its width.
    """
    try:
        with opened(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BadSize(path.name, "more than is shown")
            image.draft("RGB", (side, side))
            return to_rgb(upright(image))
    except BadSize as error:
        raise PhotoMissing(f"more than {MOST_PIXELS // 1_000_000} megapixels, or too long for its width") from error
    except UnreadableSample as error:
        raise PhotoMissing("broken or no picture") from error


def write_pictures(
    out: Path, slots: np.ndarray, open_photo: PhotoOpener, options: PictureOptions, progress: Callable[[int], None]
) -> PictureReport:
    """Write `out/thumbs` and `out/pictures`. slots: (N,) place of each row among the thumbnails, each taken once.

    Memory stays flat: a few sprites are under way at a time. `progress` is told of rows as they are done.
    """
    if not features.check("webp"):
        raise ValueError("this Pillow cannot write WebP: install Pillow from its own wheels")
    rows = np.argsort(slots, kind="stable")  # row at each place
    sheets = [rows[start : start + PER_SPRITE].tolist() for start in range(0, len(rows), PER_SPRITE)]
    has_picture = np.zeros(len(rows), np.uint8)
    missing: Counter[str] = Counter()
    looks, known = np.zeros((len(rows), 3 * SIDE * SIDE), np.uint8), np.zeros(len(rows), bool)
    size = 0
    for sheet in _in_threads(
        lambda number: _write_sheet(out, number, sheets[number], open_photo, options), len(sheets), options.workers
    ):
        has_picture[sheet.shown] = 1
        missing.update(sheet.reasons)
        for row, seen in sheet.looks.items():
            looks[row], known[row] = seen, True
        size += sheet.bytes
        progress(sheet.rows)
    return PictureReport(has_picture, copy_groups(looks, known), missing, size)


@dataclass
class _Sheet:
    """What became of a sprite: its rows, those with a picture, why photos are missing, looks by row, bytes."""

    rows: int
    shown: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    looks: dict[int, np.ndarray] = field(default_factory=dict)
    bytes: int = 0


def _write_sheet(
    out: Path, number: int, rows: Sequence[int], open_photo: PhotoOpener, options: PictureOptions
) -> _Sheet:
    """One sprite and the pictures of its rows."""
    side = options.thumbnail
    sprite = Image.new("RGB", (side * COLUMNS, side * -(-len(rows) // COLUMNS)), GROUND)
    sheet = _Sheet(len(rows))
    for place, row in enumerate(rows):
        try:
            photo = open_photo(row, max(options.picture, 2 * side))
        except PhotoMissing as error:
            sheet.reasons.append(str(error))
            continue
        if options.picture:
            picture = photo.copy()
            picture.thumbnail((options.picture, options.picture), Image.Resampling.BICUBIC, reducing_gap=2)
            sheet.bytes += _save(picture, numbered(out / "pictures", row), options.quality)
            sheet.shown.append(row)
        thumbnail = ImageOps.fit(photo, (side, side), Image.Resampling.BICUBIC)
        sheet.looks[row] = look(thumbnail)
        sprite.paste(thumbnail, (place % COLUMNS * side, place // COLUMNS * side))
    sheet.bytes += _save(sprite, numbered(out / "thumbs", number), options.quality)
    return sheet


def _save(image: Image.Image, path: Path, quality: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "WEBP", quality=quality, method=2)
    return path.stat().st_size


def _in_threads(work: Callable[[int], _Sheet], count: int, workers: int) -> Iterator[_Sheet]:
    """`work(0)`, `work(1)`, ... in order, at most a few ahead of the consumer (decoders let other threads run)."""
    numbers = iter(range(count))
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[_Sheet]] = [pool.submit(work, number) for number in islice(numbers, 2 * workers)]
        while waiting:
            result = waiting.pop(0).result()
            waiting += [pool.submit(work, number) for number in islice(numbers, 1)]
            yield result
