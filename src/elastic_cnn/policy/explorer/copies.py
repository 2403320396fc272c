"""Photos that look the same: copies of a file, saved again or made smaller, found without comparing all with all."""

import numpy as np
from PIL import Image

SIDE = 8
CLOSE = 10  # most that a mean colour of an eighth by an eighth of the photo may differ by, of 255
TAKEN = 4  # numbers of bits by which photos are put together before they are compared
MOST = 256  # different photos that one is compared with under a number

_ORDER = 1 << np.arange(16)


def look(thumbnail: Image.Image) -> np.ndarray:
    """(192,) uint8: mean colours of 8 x 8 parts of a square RGB picture."""
    return np.asarray(thumbnail.resize((SIDE, SIDE), Image.Resampling.BOX), np.uint8).reshape(-1)


def copy_groups(looks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) uint32: a number, from 1, for the photos that look like another one; 0 for the others.

    looks: (N, 192) uint8 as of `look`. known: (N,) bool, which rows have one. A photo is compared with the first
    ones of the looks that share a quarter of the signs of differences between neighbours (dHash, 64 bits) with it.
    """
    keys = _keys(looks)
    first_of = np.arange(len(looks))
    met: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(known):
        places = [met.setdefault((part, int(keys[row, part])), []) for part in range(TAKEN)]
        others = sorted({other for place in places for other in place})
        if others:
            apart = np.abs(looks[others].astype(np.int16) - looks[row].astype(np.int16)).max(axis=1)
            if apart.min() <= CLOSE:
                first_of[row] = others[int(apart.argmin())]
                continue
        for place in places:
            if len(place) < MOST:
                place.append(int(row))
    firsts, places_of, counts = np.unique(first_of, return_inverse=True, return_counts=True)
    numbers = np.where(counts > 1, np.cumsum(counts > 1), 0)
    return numbers[places_of].astype(np.uint32) if len(firsts) else np.zeros(0, np.uint32)


def _keys(looks: np.ndarray) -> np.ndarray:
    """(N, 4) int: 16 bits each, whether a part is clearly brighter than the one to its right (round the edge)."""
    grey = looks.reshape(-1, SIDE, SIDE, 3).astype(np.int16).sum(axis=3)
    bits = (grey > np.roll(grey, -1, axis=2) + CLOSE).reshape(-1, TAKEN, 16)
    return (bits * _ORDER).sum(axis=2)
