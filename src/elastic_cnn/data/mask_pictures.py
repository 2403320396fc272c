"""Pictures of masks: coloured, laid over the photo, side by side, and many on one sheet (paper, Appendix D)."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from elastic_cnn.data.left_out import once
from elastic_cnn.files import atomic_write
from elastic_cnn.fonts import HINT, fonts_with

Colour = tuple[int, int, int]
GAP = 4  # pixels between pictures
LEGEND_ROW = 18  # pixels
FONT_SIZE, LATIN = 12, 0x24F  # the last letter that Pillow's own font shows
CHARACTER = 8  # pixels, a generous width in the legend's font


def colour_mask(mask: np.ndarray, palette: Sequence[Colour]) -> Image.Image:
    """uint8 (H, W) class numbers -> a palette picture of that size: its values are the numbers, it looks coloured.

    Numbers without a colour (255, pixels that do not count) are black.
    """
    picture = Image.fromarray(np.ascontiguousarray(mask, dtype=np.uint8)).convert("P")
    colours = [*palette, *[(0, 0, 0)] * (256 - len(palette))]
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def visible(bands: Tensor) -> Image.Image:
    """Floats (C, H, W) in 0..1 as an RGB picture: the first three channels, or the first one as grey."""
    shown = bands[:3] if len(bands) >= 3 else bands[:1].expand(3, -1, -1)
    return Image.fromarray((255 * shown).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


def overlay(photo: Image.Image, mask: np.ndarray, palette: Sequence[Colour], strength: float = 0.55) -> Image.Image:
    """The photo with the mask's colours laid over it; `strength` 0 shows the photo alone, 1 the colours alone."""
    return Image.blend(photo.convert("RGB"), colour_mask(mask, palette).convert("RGB"), strength)


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of equal height in a row, on white."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + GAP
    return row


def contact_sheet(
    rows: Iterable[Sequence[Image.Image]], classes: Sequence[str], palette: Sequence[Colour]
) -> Image.Image:
    """Rows of pictures below each other, and below them the colours with their classes."""
    strips = [side_by_side(row) for row in rows]
    width = max(strip.width for strip in strips)
    legend = _legend(width, classes, palette)
    strips.append(legend)
    sheet = Image.new("RGB", (width, sum(strip.height + GAP for strip in strips) - GAP), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + GAP
    return sheet


def _legend(width: int, classes: Sequence[str], palette: Sequence[Colour]) -> Image.Image:
    font = _font("".join(classes))
    widest = max(max(CHARACTER * len(name), font.getlength(name)) for name in classes)
    cell = LEGEND_ROW + math.ceil(widest) + CHARACTER
    columns = max(1, width // cell)
    picture = Image.new("RGB", (width, LEGEND_ROW * -(-len(classes) // columns)), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, colour) in enumerate(zip(classes, palette, strict=True)):
        left, top = number % columns * cell, number // columns * LEGEND_ROW
        draw.rectangle((left + 2, top + 3, left + LEGEND_ROW - 4, top + LEGEND_ROW - 3), fill=colour, outline="black")
        draw.text((left + LEGEND_ROW, top + 1), name, fill="black", font=font)
    return picture


def _font(characters: str) -> Any:
    """A font that shows them, where one is found; one warning where not."""
    if max(map(ord, characters)) <= LATIN:
        return ImageFont.load_default(size=FONT_SIZE)
    fonts, lacking = fonts_with(characters)
    if lacking or len(fonts) > 1:  # Pillow draws a text in one font
        once("fonts", f"no font of this machine shows all of {''.join(sorted(set(characters)))[:40]}: {HINT}")
    return ImageFont.truetype(fonts[0][1], FONT_SIZE) if fonts else ImageFont.load_default(size=FONT_SIZE)


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write atomically, in the format of the path's ending."""
    with atomic_write(path) as temporary:
        picture.save(temporary)
    return path
