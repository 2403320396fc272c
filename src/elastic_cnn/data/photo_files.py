"""Drawing some of many photos."""

from collections.abc import Sequence
from pathlib import Path

import torch


def draw(photos: Sequence[Path], count: int, seed: int) -> tuple[list[Path], list[Path]]:
    """`count` photos at random to calibrate on, and as many others, where there are, to compare on."""
    order = torch.randperm(len(photos), generator=torch.Generator().manual_seed(seed)).tolist()
    return [photos[i] for i in order[:count]], [photos[i] for i in order[count : 2 * count]]
