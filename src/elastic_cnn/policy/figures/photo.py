"""Figure 1: photos beside their policies, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from elastic_cnn.measure.correlations import standardised
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, shade_stages, show, style, thumbnail
from elastic_cnn.policy.scores import BlockInfo


@dataclass(frozen=True)
class PhotoPolicy:
    """A photo, its scores (blocks,), and a line of text below it."""

    photo: Image.Image
    scores: np.ndarray
    caption: str = ""


def figure_photos(
    photos: Sequence[PhotoPolicy], blocks: Sequence[BlockInfo], all_scores: np.ndarray | None = None
) -> Any:
    """A row a photo: the photo, and its score at every block as bars from the first block to the last.

    With the scores of all photos (N, blocks), a bar is the distance from their mean in standard deviations at that
    block: up (blue) where the network looks at finer scale than it does on average, down (orange) where at coarser.
    Without, a bar is the score itself. Raises `ValueError` where there is no photo, or scores do not fit the blocks.
    """
    if not photos:
        raise ValueError("a figure of photos needs at least one photo")
    for photo in photos:
        if photo.scores.shape != (len(blocks),):
            raise ValueError(f"scores of shape {photo.scores.shape} do not fit {len(blocks)} blocks")
    values = np.stack([photo.scores for photo in photos]).astype(float)
    if all_scores is not None:
        values = standardised(values, all_scores)
    with style():
        figure = new_figure(2.2 + max(3.2, 0.3 * len(blocks)), 1.25 * len(photos) + 0.9)
        grid = figure.add_gridspec(len(photos), 2, width_ratios=(1.25, max(3.2, 0.3 * len(blocks))))
        first = None
        for row, (photo, bars) in enumerate(zip(photos, values, strict=True)):
            picture = figure.add_subplot(grid[row, 0])
            show(picture, thumbnail(photo.photo, 224))
            picture.set_ylabel(plain(photo.caption, 18), fontsize=8)
            first = axes = figure.add_subplot(grid[row, 1], sharex=first, sharey=first)
            shade_stages(axes, blocks, labels=row == 0)
            axes.bar(range(len(blocks)), bars, 0.72, color=[BLUE if bar > 0 else ORANGE for bar in bars], zorder=2)
            axes.axhline(0, color=GREY, linewidth=0.8, zorder=3)
            axes.set_xticks(range(len(blocks)), [plain(block.name, 20) for block in blocks])
            last = row == len(photos) - 1
            axes.tick_params(axis="x", rotation=60 if len(blocks) > 6 else 0, length=0, labelbottom=last)
        limit = 1.1 * max(np.abs(values).max(), 1e-6)
        axes.set_ylim(-limit, limit)
        unit = "score, in deviations from the mean of all photos" if all_scores is not None else "score (Equation 5)"
        figure.supxlabel(
            f"elastic blocks, first to last\n{unit}: up (blue) is finer, down (orange) coarser", fontsize=8
        )
    return figure
