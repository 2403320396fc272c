"""The pictures of a test: confusions, reliability, and the worst mistakes on a contact sheet."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.evaluation.collect import Answers
from elastic_cnn.evaluation.tables import Calibration
from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, save, style
from elastic_cnn.policy.names import readable

NAMED = 60  # classes whose names stand beside a confusion matrix
NUMBERED = 20  # whose counts stand in it
TILE, CAPTION, COLUMNS = 180, 34, 6


def draw_confusion(counts: np.ndarray, classes: Sequence[str], path: Path, dark: bool = False) -> Path:
    """Counts (C, C), rows as parts of the photos of a class, as PNG; `path` without its ending; for a dark page."""
    count = len(classes)
    side = min(12.0, 2.6 + 0.32 * count)
    shades, low, high, turn = (
        (_dark_shades(), "#e6e8ee", "#0f1116", 0.7) if dark else ("Blues", "#222222", "white", 0.5)
    )
    with style(dark):
        figure = new_figure(side + 1, side)
        axes = figure.add_subplot()
        parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(parts, cmap=shades, vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(image, ax=axes, shrink=0.7, label="part of the photos of a class")
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        if count <= NAMED:
            names = [plain(readable(name), 24) for name in classes]
            axes.set_xticks(range(count), names, rotation=90)
            axes.set_yticks(range(count), names)
        if count <= NUMBERED:
            for row, column in zip(*np.nonzero(counts), strict=True):
                colour = high if parts[row, column] > turn else low
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    return save(figure, path, ("png",), dark=dark)[0]


def _dark_shades() -> Any:
    """From a dark page's ground to blue."""
    colors: Any = require("matplotlib.colors", "figures")
    return colors.LinearSegmentedColormap.from_list("dark blues", ["#20242d", "#2b5fae", "#6ea8ff"])


def draw_reliability(found: Calibration, path: Path, dark: bool = False) -> Path:
    """How often answers of a confidence are right, as PNG; how many there are stands below. dark: for a dark page."""
    line = "#56b4e9" if dark else BLUE
    with style(dark):
        figure = new_figure(4.6, 4.8)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        low, high, photos, confidence, right = (np.array(values) for values in zip(*found.bins, strict=True))
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="as sure as right")
        upper.plot(confidence, right, color=line, marker="o", linewidth=1.5, label="answers")
        upper.vlines(
            confidence,
            np.minimum(confidence, right),
            np.maximum(confidence, right),
            color=ORANGE,
            linewidth=3,
            alpha=0.5,
        )
        upper.set_ylabel("part that is right")
        upper.set_ylim(0, 1.02)
        upper.set_title(f"expected calibration error {100 * found.error:.1f} points")
        upper.legend(frameon=False, loc="upper left")
        lower.bar((low + high) / 2, photos, width=(high - low) * 0.92, color=line, alpha=0.7)
        lower.set_xlabel("confidence")
        lower.set_ylabel("answers")
        lower.set_xlim(0, 1)
    return save(figure, path, ("png",), dark=dark)[0]


class Mistake(NamedTuple):
    """A small photo, what it is and what was said of it."""

    photo: Image.Image
    truth: str
    answer: str


def mistakes(answers: Answers, rows: Sequence[int]) -> list[Mistake]:
    """Those of these rows whose photos can be opened (not in a tar file, not gone)."""
    found = []
    for row in rows:
        with suppress(UnreadableSample, ValueError):
            photo = read_rgb(answers.paths[row])
            photo.thumbnail((TILE, TILE))
            found.append(Mistake(photo, *said(answers, row)))
    return found


def contact_sheet(found: Sequence[Mistake], path: Path) -> Path | None:
    """The photos in a grid, with truth and answer; None where there is none."""
    tiles = [_tile(*mistake) for mistake in found]
    if not tiles:
        return None
    across = min(COLUMNS, len(tiles))
    down = -(-len(tiles) // across)
    sheet = Image.new("RGB", (across * (TILE + 8) + 8, down * (TILE + CAPTION + 8) + 8), "white")
    for number, tile in enumerate(tiles):
        place = 8 + (number % across) * (TILE + 8), 8 + (number // across) * (TILE + CAPTION + 8)
        sheet.paste(tile, place)
    with atomic_write(path) as temporary:
        sheet.save(temporary, "JPEG", quality=88)
    return path


def _tile(photo: Image.Image, truth: str, answer: str) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE + CAPTION), "white")
    tile.paste(photo, ((TILE - photo.width) // 2, (TILE - photo.height) // 2))
    draw, font = ImageDraw.Draw(tile), _font()
    draw.text((2, TILE + 3), _fitting(draw, f"is {truth}", font), fill="#222222", font=font)
    draw.text((2, TILE + 18), _fitting(draw, f"said {answer}", font), fill="#b42318", font=font)
    return tile


def said(answers: Answers, row: int) -> tuple[str, str]:
    """What a photo is and what the network said of it, in words."""
    names = [readable(name) for name in answers.classes]
    if answers.several:
        truth = [name for name, there in zip(names, answers.truth[row], strict=True) if there]
        above = [name for name, chance in zip(names, answers.probabilities[row], strict=True) if chance > 0.5]
        return ", ".join(truth) or "nothing", ", ".join(above) or "nothing"
    answer = int(answers.predicted[row])
    return names[int(answers.truth[row])], f"{names[answer]} {100 * answers.probabilities[row, answer]:.0f}%"


def _font() -> Any:
    """A font that shows Latin letters; matplotlib's, since Pillow's own has no others."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 11)


def _fitting(draw: Any, text: str, font: Any) -> str:
    """`text`, shortened to a tile's width."""
    text = " ".join(text.split())
    while text and draw.textlength(text, font=font) > TILE - 4:
        text = text[:-2] + "…"
    return text
