"""The policy against the size of what the photo shows, where sizes are known."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_cnn.extras import require
from elastic_cnn.measure.correlations import rank_correlations, standardised
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, SCORES, block_label, new_figure, style
from elastic_cnn.policy.table import PolicyTable

FEWEST = 10


@dataclass(frozen=True)
class SizePolicy:
    """Rows whose sizes are known; `sizes` (M,): the geometric mean over an image's objects; `correlation` (blocks,):
    Spearman's between size and score at each block, 0 where the scores do not vary."""

    rows: np.ndarray
    sizes: np.ndarray
    correlation: np.ndarray


def policy_by_size(table: PolicyTable) -> SizePolicy:
    """Sizes and their correlation with the scores. `ValueError` where sizes are known of fewer than ten images."""
    known = [(row, sizes) for row, sizes in enumerate(table.column("object_sizes")) if sizes and min(sizes) > 0]
    if len(known) < FEWEST:
        raise ValueError(f"object sizes are known for {len(known)} images; the figure needs at least {FEWEST}")
    rows = np.array([row for row, _ in known])
    sizes = np.array([np.exp(np.mean(np.log(values))) for _, values in known])
    return SizePolicy(rows, sizes, rank_correlations(sizes, table.scores[rows]))


def figure_sizes(table: PolicyTable, bins: int = 8) -> Any:
    """Left: each block's mean score (in deviations from its mean) over object size, in bins of equally many images.
    Right: Spearman's correlation of object size and score at each block. `ValueError` where sizes are not known."""
    found = policy_by_size(table)
    relative = standardised(table.scores[found.rows].astype(float))  # (M, blocks)
    parts = np.array_split(np.argsort(found.sizes, kind="stable"), min(bins, len(found.sizes) // 3))
    centres = [np.exp(np.log(found.sizes[part]).mean()) for part in parts]
    means = np.stack([relative[part].mean(axis=0) for part in parts])  # (bins, blocks)
    blocks = table.info.blocks
    colours = require("matplotlib", "figures").colormaps[SCORES](np.linspace(0, 0.92, len(blocks)))
    with style():
        figure = new_figure(9, max(3.2, 0.22 * len(blocks) + 0.9))
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for block, colour in enumerate(colours):
            left.plot(centres, means[:, block], "o-", color=colour, markersize=3, linewidth=1.4)
        left.axhline(0, color=GREY, linewidth=0.8)
        left.set_xscale("log", base=2)
        left.xaxis.set_major_formatter(require("matplotlib.ticker", "figures").FormatStrFormatter("%g"))
        left.set_xlabel(f"object size ({table.info.size_unit})")
        left.set_ylabel("mean score, deviations (coarse ← → fine)")
        ranks = np.arange(len(blocks))
        signs = [BLUE if value > 0 else ORANGE for value in found.correlation]
        right.barh(ranks, found.correlation, 0.7, color=signs)
        right.axvline(0, color=GREY, linewidth=0.8)
        right.set_yticks(ranks, [block_label(block) for block in blocks])
        for rank, colour in zip(ranks, colours, strict=True):
            right.plot(-0.96, rank, "o", color=colour, markersize=6)
        right.invert_yaxis()
        right.set_xlim(-1, 1)
        right.set_xticks((-1, -0.5, 0, 0.5, 1))
        right.set_xlabel("Spearman's correlation of object size and score")
    return figure
