"""Pictures of a study: values of each seed by network, and differences with their intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic_cnn.measure.paired import PairedDifference
from elastic_cnn.policy.figures.style import BLUE, GREY, ORANGE, new_figure, plain, save, style
from elastic_cnn.study.grid import ONLY, Study
from elastic_cnn.study.tables import FEW_PAIRS, Cell, CellKey, Compared, title_of
from elastic_cnn.study.units import in_units, metric_title

COLOURS = {"better": BLUE, "worse": ORANGE, "not decided": GREY}
LINE, MARGIN = 0.27, 0.9  # inches a line of a plot, and around it


def cell_title(study: Study, key: CellKey) -> str:
    """The network's title, with recipe and data where the study has several."""
    parts = [part for part in key[1:] if part != ONLY]
    return ", ".join([title_of(study, key[0]), *parts])


def draw_study(study: Study, cells: dict[CellKey, Cell], compared: Sequence[Compared], path: str | Path) -> list[Path]:
    """PATH.png: left every run's value of the study's metric and their mean, right the paired differences."""
    shown = [cell for cell in cells.values() if study.metric in cell.values]
    lines = max(len(shown), len(compared), 2)
    with style():
        figure = new_figure(10.5, MARGIN + LINE * lines)
        left, right = figure.subplots(1, 2)
        for place, cell in enumerate(shown):
            values = [in_units(study.metric, value) for value in cell.values[study.metric].values()]
            left.plot(values, [place] * len(values), "o", color=BLUE, alpha=0.6, markersize=4)
            left.plot([sum(values) / len(values)], [place], "|", color=ORANGE, markersize=14, markeredgewidth=2)
        left.set_yticks(range(len(shown)), [plain(cell_title(study, cell.key), 52) for cell in shown])
        left.set_xlabel(f"{metric_title(study.metric)}: each seed, and the mean")
        for place, found in enumerate(compared):
            draw_interval(right, place, found.difference, in_units(found.metric, 1.0), found.verdict)
        names = [_difference_title(study, found) for found in compared]
        right.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        right.set_yticks(range(len(compared)), names)
        right.set_xlabel("difference, and its 95% intervals:\nbootstrap (thick), Student's t (thin)")
        for panel, count in ((left, len(shown)), (right, len(compared))):
            panel.set_ylim(count - 0.4, -0.6)
            panel.grid(axis="x", alpha=0.3)
    return save(figure, path, formats=("png",), dpi=110)


def draw_interval(
    axes: Any, place: float, difference: PairedDifference, scale: float, verdict: str, upright: bool = False,
    limits: tuple[float, float] | None = None, marker: str = "o",
) -> None:  # fmt: skip
    """A mean with its intervals, bootstrap thick and Student's t thin, in the verdict's colour; hollow of few pairs.

    place: along the other axis. scale: from the metric to the axis. limits: of the axis; an arrow stands where an
    interval goes on outside.
    """
    colour, mean = COLOURS[verdict], scale * difference.mean

    def draw(values: Sequence[float], shape: str = "", **look: Any) -> None:
        places = [place] * len(values)
        axes.plot(*((places, values) if upright else (values, places)), shape, color=colour, **look)

    if difference.t_low is not None and difference.t_high is not None:
        ends = (scale * difference.t_low, scale * difference.t_high)
        draw(ends, linewidth=0.9)
        for end, limit, shape in zip(ends, limits or ends, "v^" if upright else "<>", strict=True):
            if limits is not None and (end < limits[0] or end > limits[1]):
                draw([limit], shape, markersize=4, clip_on=False)
    if difference.low is not None and difference.high is not None:
        draw([scale * difference.low, scale * difference.high], linewidth=3.5, alpha=0.6, solid_capstyle="butt")
    inside = "white" if difference.count < FEW_PAIRS else colour
    draw([mean], marker, markersize=5.5, markerfacecolor=inside, zorder=3)


def _difference_title(study: Study, found: Compared) -> str:
    name = plain(title_of(study, found.network), 44)
    return f"{name}\n- {plain(title_of(study, found.against), 40)}" if found.against else f"{name}\n(all pairs)"
