"""What all policy figures share: a canvas without global state, colours all can tell apart, safe text, saving."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from elastic_cnn.data.left_out import once
from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write
from elastic_cnn.fonts import HINT, fonts_with
from elastic_cnn.policy.scores import BlockInfo

# Okabe and Ito's colours: distinct with every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
SCORES = "cividis"  # dark blue (coarse) to yellow (fine); even in lightness
DIFFERENCE = "PuOr"
TEXT = "#222222"

RC = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "normal",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": TEXT,
    "text.color": TEXT,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "elastic-cnn",
    "svg.fonttype": "none",
    "figure.facecolor": "white",
}
DARK = RC | {  # on a dark page's own ground
    "axes.edgecolor": "#9aa1ad",
    "axes.facecolor": "none",
    "axes.labelcolor": "#e6e8ee",
    "text.color": "#e6e8ee",
    "xtick.color": "#9aa1ad",
    "ytick.color": "#9aa1ad",
    "xtick.labelcolor": "#e6e8ee",
    "ytick.labelcolor": "#e6e8ee",
    "figure.facecolor": "none",
}


def style(dark: bool = False) -> Any:
    """A context in which figures are made and saved in this look: on white, or dark on no ground of their own."""
    return require("matplotlib", "figures").rc_context(DARK if dark else RC)


def new_figure(width: float, height: float) -> Any:
    """A matplotlib `Figure` of that size in inches, that no global state knows."""
    return require("matplotlib.figure", "figures").Figure(figsize=(width, height), layout="constrained")


def plain(text: object, longest: int = 40) -> str:
    """`text` as matplotlib shall draw it, character by character: no formulas, no line breaks, shortened at the end."""
    words = " ".join(str(text).split())
    words = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in words)
    return (words if len(words) <= longest else words[: longest - 1] + "…").replace("$", r"\$")


def save(
    figure: Any, path: str | Path, formats: Iterable[str] = ("png", "svg"), dpi: int = 160, dark: bool = False
) -> list[Path]:
    """Write `path` (no suffix) in every format, atomically; returns the files. Equal figures give equal files.

    dark: the figure was made in that `style`.
    """
    written = []
    with style(dark), without_boxes():
        figure.draw_without_rendering()
        if use_fonts_for(figure):
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, so that all formats look the same
    for kind in formats:
        target = Path(f"{path}.{kind}")
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        with style(dark), without_boxes(), atomic_write(target) as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=dates.get(kind))
        written.append(target)
    return written


@contextmanager
def without_boxes() -> Iterator[None]:
    """matplotlib does not warn of each character that its font lacks; `use_fonts_for` says it in one line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def use_fonts_for(figure: Any) -> bool:
    """Give texts that the usual font does not show fonts of this machine that do; whether any text has one now.

    One warning names the characters that no font shows.
    """
    texts = figure.findobj(require("matplotlib.text", "figures").Text)
    usual, _ = fonts_with("A")
    known = {*usual}
    strange = {text: [font for font in fonts_with(text.get_text())[0] if font not in known] for text in texts}
    changed = [text for text, fonts in strange.items() if fonts]
    for text in changed:
        text.set_fontfamily([*(family for family, _ in usual), *(family for family, _ in strange[text])])
    _, lacking = fonts_with("".join(text.get_text() for text in texts))
    if lacking:
        once("fonts", f"no font of this machine shows {lacking[:20]}: {HINT}")
    return bool(changed)


def thumbnail(photo: Image.Image, side: int) -> np.ndarray:
    """The centre square of a photo, (side, side, 3) uint8."""
    photo = photo.convert("RGB")
    short = min(photo.size)
    left, top = (photo.width - short) // 2, (photo.height - short) // 2
    box = (left, top, left + short, top + short)
    return np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=2))


def show(axes: Any, picture: np.ndarray) -> None:
    """A picture without axes."""
    axes.imshow(picture, interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def block_label(block: BlockInfo) -> str:
    """`layer1.0` and its resolution."""
    return f"{plain(block.name)}  {resolution(block)}".rstrip()


def resolution(block: BlockInfo) -> str:
    """Height and width of the block's activations, empty where not known."""
    return "" if block.height is None else f"{block.height}\N{MULTIPLICATION SIGN}{block.width}"


def same_resolution(blocks: Sequence[BlockInfo]) -> list[tuple[int, int, str]]:
    """Runs of blocks of one stage and resolution: (first, one past the last, label)."""
    runs: list[tuple[int, int, str]] = []
    key = None
    for index, block in enumerate(blocks):
        here = (block.stage, block.height, block.width)
        if here != key:
            runs.append((index, index + 1, resolution(block)))
            key = here
        else:
            runs[-1] = (runs[-1][0], index + 1, runs[-1][2])
    return runs


def shade_stages(axes: Any, blocks: Sequence[BlockInfo], labels: bool = True) -> None:
    """Behind a plot over blocks (x = 0, 1, ...): a band for every other stage, and its resolution on top."""
    for number, (first, stop, label) in enumerate(same_resolution(blocks)):
        if number % 2:
            axes.axvspan(first - 0.5, stop - 0.5, color="#f0f0f0", zorder=0, linewidth=0)
        if labels:
            middle = (first + stop - 1) / 2
            axes.annotate(
                label, (middle, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", va="bottom", fontsize=8, color="#555555",
            )  # fmt: skip
    axes.set_xlim(-0.5, len(blocks) - 0.5)
