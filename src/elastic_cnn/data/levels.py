"""Numbers of all types as levels in 0..1: by the type of the numbers, never by a photo's own largest value."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from elastic_cnn.data.left_out import once
from elastic_cnn.data.picture_kinds import Reading, check_aspect
from elastic_cnn.data.sampler import UnreadableSample

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
FEW_LEVELS = 32  # of 256; a picture of more than 8 bits that keeps no more of many draws a notice
SLACK = 1.01  # fractions may pass 1 by so much: rounding, sharpening


def levels_of_grey(image: Image.Image, name: str, reading: Reading) -> np.ndarray:
    """(H, W) in 0..1 of a grey picture of more than 8 bits."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "I" and tags.get(BITS_PER_SAMPLE, (16,))[0] == 32 and tags.get(SAMPLE_FORMAT, (1,))[0] == 1:
        values = values.view(np.uint32)
    levels = _scaled(values, reading.max_value or _white_of(image), name)
    if tags.get(PHOTOMETRIC, 1) == 0:
        levels = 1 - levels  # white is 0 in this file
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):  # one grey of a PNG is not to be seen
        levels = np.where(values == hidden, _grey(reading.background), levels)
    return levels


def levels_of_array(values: np.ndarray, name: str, reading: Reading) -> np.ndarray:
    """(H, W, C) in 0..1 from an array (H, W), (H, W, C) or (C, H, W), C as `reading` says; grey for RGB in 3."""
    channels, shape = reading.channels, values.shape
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim == 3 and values.shape[2] not in (channels, 1) and values.shape[0] in (channels, 1):
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.dtype.kind not in "buif" or 0 in shape:
        raise UnreadableSample(name, f"an array of shape {shape} and type {values.dtype} is no picture")
    if values.shape[2] == 1 and channels == 3:
        values = values.repeat(3, axis=2)
    if values.shape[2] != channels:
        raise UnreadableSample(name, f"an array of shape {shape} has no side of {channels}, the network's channels")
    check_aspect(values.shape[1], values.shape[0], name)
    white = 1.0 if values.dtype.kind in "bf" else float(np.iinfo(values.dtype).max)
    if values.dtype in (np.bool_, np.uint8):
        return values.astype(np.float64) / white
    return _scaled(values, reading.max_value or white, name)


def eight_bits(levels: np.ndarray) -> np.ndarray:
    """0..1 -> uint8."""
    return (levels * 255).astype(np.uint8)


def warn_of_dark_colour(image: Image.Image, name: str) -> None:
    """A notice for an RGB picture of 16 bits a colour that keeps hardly a level where it is read as 8 bits."""
    high = max(band[1] for band in image.getextrema())  # type: ignore[index]
    if 0 < high <= FEW_LEVELS:
        once(
            "few levels of colour",
            f"{name}: of its 16 bits a colour 8 are read, and its values reach {high} of 255 there, so nearly all its "
            "levels vanish in black: save it scaled to the whole range (this is said once)",
        )


def _white_of(image: Image.Image) -> float:
    """The largest value of the type that the file's grey numbers have."""
    if image.mode == "F":
        return 1.0
    tags = getattr(image, "tag_v2", {})
    bits, signed = tags.get(BITS_PER_SAMPLE, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0] == 2
    return float(2 ** (bits - signed) - 1)


def _scaled(values: np.ndarray, white: float, name: str) -> np.ndarray:
    """float64 in 0..1, `white` as 1. `UnreadableSample` for what is no brightness on that scale."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableSample(name, "it holds values that are not finite: replace or remove it")
    if high > SLACK * white or low < (1 - SLACK) * white:
        raise UnreadableSample(
            name,
            f"its values lie in {low:g}..{high:g}, 0..{white:g} are expected: set max_value, or shift and scale it",
        )
    if white > 255 and 0 < high * 256 / white <= FEW_LEVELS and high > 2 * FEW_LEVELS:
        once(
            "few levels",
            f"{name}: its values reach {high:g} of {white:g}, so nearly all its levels vanish in black: set "
            f"options.max_value={2 ** int(np.ceil(np.log2(high + 1))) - 1} to see them (this is said once)",
        )
    return np.clip(values.astype(np.float64) / white, 0, 1)


def _grey(colour: Sequence[int]) -> float:
    """The brightness of a colour, in 0..1, as Pillow's."""
    return Image.new("RGB", (1, 1), tuple(colour)).convert("L").getpixel((0, 0)) / 255  # type: ignore[operator]
