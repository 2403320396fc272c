"""Figure 6: policy space by t-SNE: the photos, the score of each block, and where Elastic gains over its base."""

import math
from typing import Any

import numpy as np

from elastic_cnn.extras import require
from elastic_cnn.policy.figures.categories import Opener
from elastic_cnn.policy.figures.style import (
    DIFFERENCE,
    ORANGE,
    SCORES,
    block_label,
    new_figure,
    show,
    style,
    thumbnail,
)  # fmt: skip
from elastic_cnn.policy.table import PolicyTable

RASTER_FROM = 1000  # more points than this are drawn as pixels in vector files too
FEWEST = 10  # a density of fewer points says nothing


def figure_photo_map(coordinates: np.ndarray, open_photo: Opener, cells: int = 30, side: int = 64) -> Any:
    """Left: photos at their t-SNE coordinates (N, 2), at most one in each cell of a `cells` x `cells` grid.

    Each is drawn as a square of `side` pixels; of the photos in a cell that nearest its centre is shown.
    """
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    extent = np.where(high > low, high - low, 1).max()
    places = (coordinates - (low + high) / 2) / extent * (cells - 1) + cells / 2  # (N, 2), in cells
    taken: dict[tuple[int, int], tuple[float, int]] = {}
    for row, place in enumerate(places):
        cell = (int(place[0]), int(place[1]))
        offset = float(np.abs(place - np.array(cell) - 0.5).sum())
        if cell not in taken or offset < taken[cell][0]:
            taken[cell] = (offset, row)
    canvas = np.full((cells * side, cells * side, 3), 255, np.uint8)
    for (column, line), (_, row) in taken.items():
        photo = open_photo(row)
        if photo is not None:
            top, left = (cells - 1 - line) * side, column * side
            canvas[top : top + side, left : left + side] = thumbnail(photo, side)
    with style():
        figure = new_figure(7, 7)
        show(figure.add_subplot(), canvas)
    return figure


def figure_block_maps(table: PolicyTable, coordinates: np.ndarray) -> Any:
    """Middle: for every block a map of all images at their t-SNE coordinates (N, 2), coloured by the block's score.

    The colours of a map span its scores' 2nd to 98th percentile.
    """
    blocks = table.info.blocks
    columns = min(len(blocks), 4 if len(blocks) <= 12 else 6)
    rows = math.ceil(len(blocks) / columns)
    with style():
        figure = new_figure(1.75 * columns + 0.8, 1.95 * rows + 0.3)
        cells = figure.subplots(rows, columns, squeeze=False)
        size = float(np.clip(6000 / len(table), 0.4, 12))
        points = None
        for cell, block, scores in zip(cells.flat, blocks, table.scores.T, strict=False):
            low, high = np.percentile(scores, (2, 98))
            shades = np.clip((scores - low) / (high - low if high > low else 1), 0, 1)
            points = cell.scatter(
                *coordinates.T, c=shades, s=size, cmap=SCORES, vmin=0, vmax=1, linewidths=0,
                rasterized=len(table) > RASTER_FROM,
            )  # fmt: skip
            cell.set_title(block_label(block), fontsize=8)
            _bare(cell)
        for cell in cells.flat[len(blocks) :]:
            cell.set_axis_off()
        bar = figure.colorbar(points, ax=cells, shrink=0.6, aspect=30, ticks=(0, 1))
        bar.ax.set_yticklabels(["coarse", "fine"])
        bar.outline.set_visible(False)
    return figure


def figure_gain_density(table: PolicyTable, coordinates: np.ndarray) -> Any:
    """Right: density of all images in policy space, that of those which Elastic gets right and its base wrong, and
    their ratio, where the density of all is above 2% of its peak.

    With fewer than ten such images their places are marked instead. `ValueError` without a base network's answers, or
    with fewer than ten images.
    """
    gained = table.gained()
    if len(table) < FEWEST:
        raise ValueError(f"a density needs at least {FEWEST} images, the table has {len(table)}")
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    box = (low[0] - margin[0], high[0] + margin[0], low[1] - margin[1], high[1] + margin[1])
    all_density = _density(coordinates, box)
    dense = int(gained.sum()) >= FEWEST
    with style():
        figure = new_figure(9.6 if dense else 6.6, 3.3)
        cells = figure.subplots(1, 3 if dense else 2)
        _draw_density(cells[0], all_density, box, f"all {len(table):,} images")
        title = f"{int(gained.sum()):,} that Elastic gets right, its base wrong"
        if not dense:
            cells[1].scatter(*coordinates.T, s=2, color="#dddddd", linewidths=0, rasterized=len(table) > RASTER_FROM)
            cells[1].scatter(*coordinates[gained].T, s=22, marker="x", color=ORANGE)
            cells[1].set_title(title)
            _bare(cells[1], box)
            return figure
        gain_density = _density(coordinates[gained], box)
        _draw_density(cells[1], gain_density, box, title)
        floor = 0.02 * all_density.max()
        ratio = np.log2(np.maximum(gain_density, 0.1 * floor) / np.maximum(all_density, 0.1 * floor))
        ratio = np.ma.masked_where(all_density < floor, ratio).clip(-2, 2)
        image = cells[2].imshow(
            ratio, extent=box, origin="lower", aspect="auto", cmap=DIFFERENCE, vmin=-2, vmax=2, interpolation="bilinear"
        )
        cells[2].set_title("ratio of the two")
        _bare(cells[2], box)
        bar = figure.colorbar(image, ax=cells[2], ticks=(-2, 0, 2), shrink=0.7)
        bar.ax.set_yticklabels(["¼", "1", "4"])
        bar.outline.set_visible(False)
    return figure


def _density(points: np.ndarray, box: tuple[float, ...], cells: int = 120) -> np.ndarray:
    """A Gaussian kernel density (Scott's rule) of points (N, 2) on a grid over `box`: (cells, cells), rows are y."""
    stats = require("scipy.stats", "figures")
    spread = np.array([box[1] - box[0], box[3] - box[2]])
    jitter = np.random.default_rng(0).normal(0, 1e-6, points.shape) * spread  # no singular covariance
    x, y = np.meshgrid(np.linspace(box[0], box[1], cells), np.linspace(box[2], box[3], cells))
    estimate = stats.gaussian_kde((points + jitter).T.astype(np.float64))
    return estimate(np.stack([x.ravel(), y.ravel()])).reshape(cells, cells)


def _draw_density(axes: Any, density: np.ndarray, box: tuple[float, ...], title: str) -> None:
    axes.imshow(density, extent=box, origin="lower", aspect="auto", cmap=SCORES, vmin=0, interpolation="bilinear")
    axes.set_title(title)
    _bare(axes, box)


def _bare(axes: Any, box: tuple[float, ...] | None = None) -> None:
    """No ticks and spines: t-SNE's coordinates mean nothing by themselves."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_box_aspect(1)
    if box is not None:
        axes.set_xlim(box[0], box[1])
        axes.set_ylim(box[2], box[3])
