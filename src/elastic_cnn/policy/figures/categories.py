"""Figure 5: all categories sorted by mean score, with photos of those at both ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, show, style, thumbnail
from elastic_cnn.policy.names import readable
from elastic_cnn.policy.table import PolicyTable

Opener = Callable[[int], Image.Image | None]


@dataclass(frozen=True)
class Category:
    """A category: its mean score over images and blocks, the half-width of its 95% interval, and its rows."""

    name: str
    mean: float
    interval: float
    rows: np.ndarray


def sort_categories(table: PolicyTable) -> list[Category]:
    """The categories by mean score, coarsest first. An image of several labels counts for each of them.

    Images without a label are counted by their prediction. `ValueError` where there is no category at all.
    """
    means = table.scores.mean(axis=1, dtype=np.float64)  # (N,)
    members: dict[str, list[int]] = {}
    for row, (label, prediction) in enumerate(zip(table.column("label"), table.column("prediction"), strict=True)):
        known = label if label is not None else prediction
        for name in [known] if isinstance(known, str) else known or []:
            members.setdefault(name, []).append(row)
    if not members:
        raise ValueError("the table has no categories: it holds neither labels nor predictions")
    categories = []
    for name, rows in members.items():
        values = means[rows]
        spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        categories.append(Category(name, float(values.mean()), float(1.96 * spread), np.array(rows)))
    return sorted(categories, key=lambda category: (category.mean, category.name))


def figure_categories(table: PolicyTable, open_photo: Opener | None = None, ends: int = 3, photos: int = 3) -> Any:
    """The categories' mean scores, sorted; beside them `photos` photos of each of the `ends` categories at either end.

    `open_photo(row)` gives the photo of a row or None; without it there are no photos. The photos shown are those whose
    mean score is nearest their category's. `ValueError` where the table has no categories.
    """
    categories = sort_categories(table)
    ends = min(ends, len(categories) // 2)
    few = len(categories) <= 40
    height = max(3.4, 0.19 * len(categories) + 1.0) if few else 4.2
    with style():
        if open_photo is None or ends == 0:
            figure = new_figure(6.4 if few else 8.5, height)
            axes = figure.add_subplot()
        else:
            figure = new_figure(10.5, max(height, 1.2 * ends + 0.6))
            left, centre, right = figure.subfigures(1, 3, width_ratios=(photos, 4.6, photos))
            axes = centre.subplots()
            means = table.scores.mean(axis=1)
            lowest, highest = categories[:ends], categories[::-1][:ends]
            _add_photos(left, lowest, means, open_photo, photos, "coarsest", ORANGE)
            _add_photos(right, highest, means, open_photo, photos, "finest", BLUE)
        _plot(axes, categories, ends, few)
    return figure


def _plot(axes: Any, categories: list[Category], ends: int, few: bool) -> None:
    ranks = np.arange(len(categories))
    means = np.array([category.mean for category in categories])
    intervals = np.array([category.interval for category in categories])
    colours = [ORANGE if i < ends else BLUE if i >= len(ranks) - ends else "#555555" for i in ranks]
    label = "mean score over images and blocks (coarse ← → fine)"
    if few:
        axes.errorbar(means, ranks, xerr=intervals, fmt="none", ecolor=GREY, elinewidth=1.2, zorder=1)
        axes.scatter(means, ranks, c=colours, s=26, zorder=2)
        axes.set_yticks(ranks, [plain(readable(category.name), 24) for category in categories])
        axes.set_xlabel(f"{label}, 95% interval")
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.margins(y=0.04)
        return
    axes.fill_between(ranks, means - intervals, means + intervals, color="#dddddd", linewidth=0)
    axes.plot(ranks, means, color="#555555", linewidth=1)
    axes.scatter(ranks, means, c=colours, s=5, zorder=2)
    axes.set_xlabel(f"{len(categories)} categories, sorted; band: 95% interval")
    axes.set_ylabel(label)


def _add_photos(
    panel: Any, categories: list[Category], means: np.ndarray, open_photo: Opener, count: int, title: str, colour: str
) -> None:
    panel.suptitle(title, color=colour, fontsize=10, fontweight="bold")
    cells = panel.subplots(len(categories), count, squeeze=False)
    for line, category in zip(cells, categories, strict=True):
        nearest = category.rows[np.argsort(np.abs(means[category.rows] - category.mean), kind="stable")]
        pictures = (open_photo(int(row)) for row in nearest[: 4 * count])
        found = [picture for picture in pictures if picture is not None][:count]
        for cell, picture in zip(line, found, strict=False):
            show(cell, thumbnail(picture, 128))
        for cell in line[len(found) :]:
            cell.set_axis_off()
        line[0].set_title(plain(readable(category.name), 30), loc="left", fontsize=8)
