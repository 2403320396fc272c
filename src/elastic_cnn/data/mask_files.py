"""Mask files to class numbers, and a look over a split's masks before a run: which classes are in them at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from elastic_cnn.data.labels import NO_CLASS, OTHER, VOID, Labels
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.picture_kinds import ARRAYS
from elastic_cnn.data.pixels import opened
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.extras import MissingExtra, require

GREY_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
OPAQUE = {"LA": "L", "RGBA": "RGB"}
LOSSY = {"JPEG": "a JPEG file", "MPO": "a JPEG file", "AVIF": "an AVIF file", "HEIF": "an HEIF file"}
LOSSY_IN_TIFF = ("jpeg", "tiff_jpeg", "webp")
LOOKED_AT = 200  # masks of a split


class WrongMask(ValueError):
    """A file that is read, and holds no mask."""


def read_mask(path: Path, labels: Labels) -> np.ndarray:
    """uint8 (H, W): class numbers, and `IGNORE` where the pixel is void; turned upright as EXIF says.

    Read are grey and palette pictures of 1, 8 and 16 bits (a palette's numbers, not its colours), colour pictures
    by `labels.palette` and the colours in `labels.values`, and arrays of whole numbers (`.npy`).

    `UnreadableSample` for a broken file; `ValueError` for a value or colour that is no class and not void, a colour
    picture without palette, transparent pixels, and JPEG and other kinds that change values.
    """
    stored = _stored_values(path, labels)
    if stored.ndim == 3:
        return _by_colour(stored, path, labels)
    inside = (stored >= 0) & (stored < len(labels.table))
    numbers = labels.table[np.where(inside, stored, 0)]
    numbers[~inside] = NO_CLASS
    if (outside := numbers == NO_CLASS).any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"{path} has the value {stored[row, column]} at row {row}, column {column}; there are "
            f"{len(labels.classes)} classes ({labels.describe()}): say what stored values mean with options.values or "
            f"`values` in labels.json (the file holds {_few(np.unique(stored).tolist())})"
        )
    return numbers.astype(np.uint8)


def _stored_values(path: Path, labels: Labels) -> np.ndarray:
    """What the file holds: whole numbers (H, W), or colours uint8 (H, W, 3)."""
    try:
        if path.suffix == ".mat":
            return np.asarray(require("scipy.io", "figures").loadmat(path)["GTcls"][0]["Segmentation"][0])
        if path.suffix.lower() == ARRAYS:
            return _whole_numbers(np.load(path, allow_pickle=False), path)
        with opened(path) as file:
            lossy = _lossy(file, path)
            picture = ImageOps.exif_transpose(file)
            picture.load()
    except (MissingExtra, UnreadableSample, WrongMask):
        raise
    except Exception as error:  # scipy raises kinds of its own for broken files
        raise UnreadableSample(str(path), error or type(error).__name__) from error
    if lossy:
        raise ValueError(f"{path} is {lossy}, which changes the values at every edge: masks must be PNG")
    if picture.mode in OPAQUE:
        if (np.asarray(picture.getchannel("A")) < 255).any():
            raise ValueError(f"{path} has transparent pixels: give them the value of a class or of {VOID}")
        picture = picture.convert(OPAQUE[picture.mode])
    if picture.mode == "RGB":
        return _colours_or_grey(np.asarray(picture), path, labels)
    if picture.mode not in GREY_MODES:
        raise ValueError(
            f"{path} is a picture of mode {picture.mode}: a mask holds one class number a pixel, as a grey or palette "
            "PNG, or the colours of `palette` in labels.json"
        )
    stored = np.asarray(picture).astype(np.int64)
    if picture.mode == "P" and labels.coloured:
        _check_palette(picture, stored, path, labels)
    return stored


def _whole_numbers(array: np.ndarray, path: Path) -> np.ndarray:
    """The numbers of an array (H, W) or (H, W, 1) as int64."""
    values = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise WrongMask(
            f"{path} holds {array.dtype} numbers of the shape {array.shape}: a mask as an array holds whole numbers, "
            "the class of each pixel, of the shape (height, width)"
        )
    return values.astype(np.int64)


def _lossy(picture: Image.Image, path: Path) -> str:
    """What the file is, where its kind changes values; empty for others."""
    if picture.format == "TIFF" and picture.info.get("compression") in LOSSY_IN_TIFF:
        return f"a TIFF file compressed as {picture.info['compression'].removeprefix('tiff_').upper()}"
    if picture.format == "WEBP" and not _is_lossless_webp(path.read_bytes()):
        return "a WebP file with loss"
    return LOSSY.get(picture.format or "", "")


def _is_lossless_webp(content: bytes) -> bool:
    """Whether the first picture in a WebP file lies in a chunk `VP8L`."""
    place = 12  # behind "RIFF", the length and "WEBP"
    while place + 8 <= len(content) and (name := content[place : place + 4]) != b"VP8 ":
        if name == b"VP8L":
            return True
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 24 if name == b"ANMF" else 8 + length + length % 2  # a frame holds chunks of its own
    return False


def _colours_or_grey(colours: np.ndarray, path: Path, labels: Labels) -> np.ndarray:
    """Colours (H, W, 3) where the labels have some; else the grey values (H, W) of a picture without colour."""
    if labels.coloured or len(labels.colour_table[0]):
        return colours
    if (colours == colours[..., :1]).all():
        return colours[..., 0].astype(np.int64)
    raise ValueError(
        f"{path} is a colour picture (mode RGB): give each class its colour as options.palette, or `palette` in "
        "labels.json (and other colours as {'#rrggbb': void} in `values`)"
    )


def _by_colour(colours: np.ndarray, path: Path, labels: Labels) -> np.ndarray:
    """Colours uint8 (H, W, 3) -> class numbers uint8 (H, W)."""
    codes, numbers = labels.colour_table
    wide = colours.astype(np.int64)
    code = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    place = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
    if (outside := codes[place] != code).any():
        row, column = np.argwhere(outside)[0]
        red, green, blue = colours[row, column].tolist()
        raise ValueError(
            f"{path} has the colour ({red}, {green}, {blue}) at row {row}, column {column}, which is no class's in the "
            f"palette: add it, or say {{'#{red:02x}{green:02x}{blue:02x}': {VOID}}} in options.values"
        )
    return numbers[place].astype(np.uint8)


def _check_palette(picture: Image.Image, stored: np.ndarray, path: Path, labels: Labels) -> None:
    """`ValueError` where a palette picture's colours are the classes' own in another order: its numbers are not."""
    file_palette = np.array(picture.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = [value for value in np.unique(stored).tolist() if value < len(file_palette)]
    codes = {value: int(file_palette[value] @ (1 << 16, 1 << 8, 1)) for value in used}
    known = dict(zip(*(part.tolist() for part in labels.colour_table), strict=True))
    if len(used) < 2 or len(set(codes.values())) < len(used) or not set(codes.values()) <= known.keys():
        return
    if wrong := [value for value in used if labels.table[value] != known[codes[value]]]:
        name = labels.classes[known[codes[wrong[0]]]] if known[codes[wrong[0]]] != IGNORE else VOID
        raise ValueError(
            f"{path} numbers its palette in another order: {wrong[0]} has the colour of {name!r}. Save it in mode RGB "
            "to read its colours, or set options.palette=[] (in labels.json: leave `palette` out) to read its numbers"
        )


def _few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values if len(values) <= 8 else [*values[:7], "..."]))


def classes_not_seen(masks: Sequence[Path], labels: Labels, most: int = LOOKED_AT) -> str:
    """A warning about the classes that do not occur in a split's masks, empty where all do. Broken files are passed by.

    Of more than `most` masks so many are looked at, spread over the split. `ValueError` where no pixel of them counts,
    and as `read_mask` raises it.
    """
    chosen = [masks[i] for i in np.unique(np.linspace(0, len(masks) - 1, min(most, len(masks))).round().astype(int))]
    counts = np.zeros(IGNORE + 1, np.int64)
    for path in chosen:
        try:
            counts += np.bincount(read_mask(path, labels).ravel(), minlength=IGNORE + 1)
        except UnreadableSample:
            continue
    looked = f"the {len(masks)} masks" if len(chosen) == len(masks) else f"{len(chosen)} of {len(masks)} masks"
    where = f"{looked} in {masks[0].parent}"
    if not counts.any():
        return ""
    if not counts[:IGNORE].any():
        raise ValueError(f"no pixel in {where} counts: all are {VOID} ({labels.describe()})")
    lost = [number for number, name in enumerate(labels.classes) if not counts[number]]
    part = f"{100 * counts[IGNORE] / counts.sum():.1f}% of the pixels"
    if counts[IGNORE] and labels.values.get(OTHER) is not None and IGNORE not in labels.values:
        return (
            f"{IGNORE} is {VOID} in {where} ({part}), though all other values are {labels.values[OTHER]!r}: say which "
            f"is meant with {IGNORE}: {labels.values[OTHER]} or {IGNORE}: {VOID} in values"
        )
    if not lost:
        return ""
    names = ", ".join(f"{labels.classes[number]!r}" for number in lost[:8])
    names += f" and {len(lost) - 8} more" if len(lost) > 8 else ""
    text = f"no pixel in {where} is of the class{'es' * (len(lost) > 1)} {names}"
    if counts[IGNORE] and not labels.mapped:
        shown = {**dict(enumerate(labels.classes)), labels.void: labels.classes[lost[0]]}
        shown.pop(lost[0])
        text += f"; {labels.void} is {VOID} here ({part}): did you mean class {lost[0]}?"
        text += (
            f" Then set options.values={{{', '.join(f'{value}: {name}' for value, name in list(shown.items())[-4:])}}}"
        )
    return text
