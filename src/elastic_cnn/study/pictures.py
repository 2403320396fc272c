"""The pictures of the page of questions: gains with intervals, a line a comparison, or along sizes, pixels or views."""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.policy.figures.style import GREY, TEXT, new_figure, plain, save, style
from elastic_cnn.study.plots import COLOURS, draw_interval
from elastic_cnn.study.questions import Series
from elastic_cnn.study.tables import FEW_PAIRS, Compared, names_of, title_of
from elastic_cnn.study.units import in_units, is_fraction, metric_title

WIDTH, DPI = 8.0, 150
LINE = 0.14  # inches a line of text
LETTERS = 46  # of a line's name, before it is broken
ACROSS = 3  # panels beside each other
INTERVALS = "95% intervals: bootstrap (thick), Student's t (thin)"


def draw_question(series: Sequence[Series], path: str | Path) -> list[Path]:
    """PATH.png of the comparisons that have pairs: panels where they have several points, else a line for each."""
    series = [one for one in series if _known([one])]
    return (_draw_panels if len(series[0].points) > 1 else _draw_lines)(series, path)


def _known(series: Sequence[Series]) -> list[Compared]:
    return [point.found for one in series for point in one.points if point.found is not None]


def _count(found: Compared | None) -> str:
    count = 0 if found is None else found.difference.count
    return f"{count or 'no'} pair{'' if count == 1 else 's'}"


def _limits(found: Sequence[Compared]) -> tuple[float, float]:
    """Of an axis that shows all means and bootstrap intervals, 0, and the t intervals of enough pairs."""
    ends = [0.0]
    for one in found:
        gain, scale = one.gain, in_units(one.metric, 1.0)
        trusted = (gain.t_low, gain.t_high) if gain.count >= FEW_PAIRS else ()
        ends += [scale * end for end in (gain.mean, gain.low, gain.high, *trusted) if end is not None]
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room


def _draw_lines(series: Sequence[Series], path: str | Path) -> list[Path]:
    limits = _limits(_known(series))
    lines: list[tuple[float, Series, str]] = []
    headings: list[tuple[float, str]] = []
    place = 0.0  # in lines of text, from the top
    for _, group in groupby(series, key=lambda one: one.study):
        members = list(group)
        shared = {one.against for one in members if one.against}
        against = shared.pop() if len(shared) == 1 else ""
        heading = textwrap.wrap(_heading(members[0], against), 105)
        headings.append((place + 0.5 * len(heading), "\n".join(heading)))
        place += len(heading) + 0.4
        for one in members:
            label = _label(one, against)
            lines.append((place + 0.5 * len(label), one, "\n".join(label)))
            place += len(label) + 0.6
        place += 0.5
    with style():
        figure = new_figure(WIDTH, place * LINE + 0.75)
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        for middle, one, _ in lines:
            _draw_line(axes, one, middle, limits)
        axes.set_yticks([middle for middle, _, _ in lines], [label for _, _, label in lines])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(limits)
        axes.set_ylim(place, -0.3)
        _write_headings(figure, axes, headings)
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(f"gain in the metric named (right of 0: better); {INTERVALS}", fontsize=8, loc="right")
    return save(figure, path, formats=("png",), dpi=DPI)


def _heading(one: Series, against: str) -> str:
    told = f", against {title_of(one.study, against)}" if against else ""
    return plain(f"{one.study.title}: {metric_title(one.metric)}{told}", 200)


def _label(one: Series, against: str) -> list[str]:
    """In lines; without the other network where the heading tells it."""
    other = "" if one.against == against else one.against
    label = names_of(one.study, one.network, other, one.label) + (f", {one.note}" if one.note else "")
    first = title_of(one.study, one.network)
    parts = [first, label[len(first) + 1 :]] if other and len(label) > LETTERS else [label]
    return [line for part in parts for line in textwrap.wrap(plain(part, 100), LETTERS)]


def _draw_line(axes: Any, one: Series, place: float, limits: tuple[float, float]) -> None:
    for found in _known([one]):
        marker = "s" if one.note else "o"
        draw_interval(axes, place, found.gain, in_units(found.metric, 1.0), found.verdict, limits=limits, marker=marker)
        axes.text(
            1.01, place, f"{found.verdict}, {_count(found)}", transform=axes.get_yaxis_transform(), va="center",
            fontsize=8, color=COLOURS[found.verdict] if found.gain.decided else "#555555",
        )  # fmt: skip


def _write_headings(figure: Any, axes: Any, headings: Sequence[tuple[float, str]]) -> None:
    """From the picture's left edge on, over labels and plot."""
    blend = require("matplotlib.transforms", "figures").blended_transform_factory
    for place, heading in headings:
        text = axes.text(
            0.01, place, heading, transform=blend(figure.transFigure, axes.transData), va="center", color=TEXT,
            fontweight="bold", fontsize=8.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        text.set_in_layout(False)


def _draw_panels(series: Sequence[Series], path: str | Path) -> list[Path]:
    across = min(ACROSS, len(series))
    down = -(-len(series) // across)
    with style():
        figure = new_figure(max(WIDTH * across / ACROSS, 4.5), 2.9 * down + 0.3)
        grid = figure.subplots(down, across, squeeze=False)
        for axes, one in zip(grid.flat, series, strict=False):
            alike = [other for other in series if other.study is one.study]
            _draw_panel(axes, one, _limits(_known(alike)))
        for axes in grid.flat[len(series) :]:
            axes.set_visible(False)
        figure.supxlabel(f"above 0: better; {INTERVALS}", fontsize=8)
    return save(figure, path, formats=("png",), dpi=DPI)


def _draw_panel(axes: Any, one: Series, limits: tuple[float, float]) -> None:
    scale = in_units(one.metric, 1.0)
    known = [(place, point.found) for place, point in enumerate(one.points) if point.found is not None]
    axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    axes.plot([p for p, _ in known], [scale * found.gain.mean for _, found in known], color="#cccccc", zorder=1)
    for place, found in known:
        draw_interval(axes, place, found.gain, scale, found.verdict, upright=True, limits=limits)
    ticks = [f"{plain(point.label).replace(' (', chr(10) + '(')}\n{_count(point.found)}" for point in one.points]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_ylim(limits)
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel(f"gain in {_family(one.metric)}{' (points)' if is_fraction(one.metric) else ''}", fontsize=8.5)
    heading = textwrap.wrap(plain(one.study.title, 80), 36)
    names = textwrap.wrap(plain(names_of(one.study, one.network, one.against, one.label), 80), 36)
    axes.set_title("\n".join([*heading, *names]), fontsize=8.5)


def _family(metric: str) -> str:
    """What the metrics of one panel have in common: without sizes and resolutions."""
    title = metric_title(metric).removesuffix(" (%)").removesuffix(" small")
    for word in (", ", " at ", " of "):
        title = title.partition(word)[0]
    return plain(title, 30)
