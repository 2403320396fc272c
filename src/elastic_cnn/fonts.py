"""Fonts for labels in other scripts than Latin: looked for among those of this machine."""

from functools import cache
from typing import Any

LAST_RESORT = "Last Resort"  # shows a box for every character of every script
HINT = "boxes stand for them in pictures; install a font for them (fonts-noto-cjk, ...)"


def fonts_with(characters: str) -> tuple[list[tuple[str, str]], str]:
    """([(family, file)] of fonts that show them, the characters that none does). Needs matplotlib, else none is found.

    The fewest fonts that a look through the list finds, each for what those before it lack.
    """
    left = {character for character in characters if character.isprintable() and not character.isspace()}
    chosen: list[tuple[str, str]] = []
    while left:
        found = max(_fonts(), key=lambda font: len(left & _characters(font[1])), default=None)
        if found is None or not left & _characters(found[1]):
            break
        chosen.append(found)
        left -= _characters(found[1])
    return chosen, "".join(sorted(left))


@cache
def _fonts() -> list[tuple[str, str]]:
    """(family, file) of the upright fonts, the usual one first, then by name."""
    try:
        from matplotlib.font_manager import fontManager
    except ImportError:
        return []
    fonts = {(font.name, font.fname) for font in fontManager.ttflist if font.style == "normal"}
    usable = [font for font in fonts if not font[0].startswith(LAST_RESORT)]
    return sorted(usable, key=lambda font: (font[0] != "DejaVu Sans", font))


@cache
def _characters(file: str) -> frozenset[str]:
    """What a font shows."""
    from matplotlib.ft2font import FT2Font

    try:
        font: Any = FT2Font(file)
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
