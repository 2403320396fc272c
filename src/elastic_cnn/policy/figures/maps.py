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
SMOOTHING = 0.08  # a kernel's deviation as a fraction of the map, for one point; it shrinks with their number (Scott)
DOUBT = 20.0  # images of average share that are added at every place, so that few images make no extreme ratio


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
    first_column, last_column = min(column for column, _ in taken), max(column for column, _ in taken)
    first_line, last_line = min(line for _, line in taken), max(line for _, line in taken)
    pitch = side + 2
    shape = ((last_line - first_line + 1) * pitch, (last_column - first_column + 1) * pitch, 3)
    canvas = np.full(shape, 255, np.uint8)
    for (column, line), (_, row) in taken.items():
        photo = open_photo(row)
        if photo is not None:
            top, left = (last_line - line) * pitch, (column - first_column) * pitch
            canvas[top : top + side, left : left + side] = thumbnail(photo, side)
    with style():
        figure = new_figure(7, 7 * shape[0] / shape[1])
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
    """Right: density of all images in policy space, and, a line each, that of those which Elastic gets right and its
    base wrong and of those which it gets wrong and its base right, with how often these occur among the images of a
    place, against their share of all.

    With fewer than ten such images their places are marked instead. `ValueError` without a base network's answers, or
    with fewer than ten images.
    """
    differing = [
        (table.gained(), "right, its base wrong", "Oranges"),
        (table.lost(), "wrong, its base right", "Purples"),
    ]
    if len(table) < FEWEST:
        raise ValueError(f"a density needs at least {FEWEST} images, the table has {len(table)}")
    box = _frame(coordinates)
    columns = 3 if max(int(rows.sum()) for rows, _, _ in differing) >= FEWEST else 2
    with style():
        figure = new_figure(9.6 if columns == 3 else 6.6, 6.6)
        cells = figure.subplots(2, columns)
        for line, (rows, words, colours) in zip(cells, differing, strict=True):
            count = int(rows.sum())
            width = SMOOTHING * max(count, FEWEST) ** (-1 / 6)  # one kernel for both, as wide as the fewer images need
            everything, found = _density(coordinates, box, width), _density(coordinates[rows], box, width)
            _draw(line[0], everything, box, f"all {len(table):,} images", cmap="Blues", vmin=0)
            title = f"{count:,} that Elastic gets {words}"
            if count < FEWEST:
                _mark(line[1], coordinates, rows, box, title)
                for cell in line[2:]:
                    cell.set_axis_off()
                continue
            _draw(line[1], found, box, title, cmap=colours, vmin=0)
            line[1].scatter(*coordinates[rows].T, s=3, color="#00000060", linewidths=0, rasterized=count > RASTER_FROM)
            share = count / len(table)
            ratio = (found + DOUBT * share) / (everything + DOUBT) / share
            ratio = np.ma.masked_where(everything < 0.02 * everything.max(), np.log2(ratio))
            image = _draw(line[2], ratio, box, "how often, against the mean", cmap=DIFFERENCE, vmin=-1, vmax=1)
            bar = figure.colorbar(image, ax=line[2], ticks=(-1, 0, 1), shrink=0.7)
            bar.ax.set_yticklabels(["half", "mean", "twice"])
            bar.outline.set_visible(False)
    return figure


def _mark(axes: Any, coordinates: np.ndarray, rows: np.ndarray, box: tuple[float, ...], title: str) -> None:
    """Few images: crosses at their places, all others as grey points."""
    axes.scatter(*coordinates.T, s=2, color="#dddddd", linewidths=0, rasterized=len(coordinates) > RASTER_FROM)
    axes.scatter(*coordinates[rows].T, s=22, marker="x", color=ORANGE)
    axes.set_title(title)
    _bare(axes, box)


def _frame(coordinates: np.ndarray) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the points, with a margin."""
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    margin = 0.08 * np.where(high > low, high - low, 1)
    (left, bottom), (right, top) = low - margin, high + margin
    return float(left), float(right), float(bottom), float(top)


def _density(points: np.ndarray, box: tuple[float, ...], width: float, cells: int = 200) -> np.ndarray:
    """Points (N, 2) counted under a Gaussian kernel at the places of a grid over `box`: (cells, cells), rows are y.

    width: the kernel's deviation as a fraction of the box. A value is the number of points that a kernel there weighs.
    """
    ranges = (box[2:], box[:2])
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=cells, range=ranges)
    sigma = width * cells
    smooth = require("scipy.ndimage", "figures").gaussian_filter(counts, sigma, mode="constant")
    return smooth * 4 * np.pi * sigma**2


def _draw(axes: Any, values: np.ndarray, box: tuple[float, ...], title: str, **colours: Any) -> Any:
    image = axes.imshow(values, extent=box, origin="lower", aspect="auto", interpolation="bilinear", **colours)
    axes.set_title(title)
    _bare(axes, box)
    return image


def _bare(axes: Any, box: tuple[float, ...] | None = None) -> None:
    """No ticks and spines: t-SNE's coordinates mean nothing by themselves."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_box_aspect(1)
    if box is not None:
        axes.set_xlim(box[0], box[1])
        axes.set_ylim(box[2], box[3])
