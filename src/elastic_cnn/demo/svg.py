"""Charts that are part of the page: points with a text to point at, and runs of one seed that are found in all charts.

Elements have the class `base` or `elastic`, `data-seed` and `data-tip`, which the page's script (`page.py`) reads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46


@dataclass(frozen=True)
class Line:
    """A run: kind (`base`, `elastic`), seed, points (x, y); name: what its points say besides."""

    kind: str
    seed: int
    points: Sequence[tuple[float, float]]
    name: str


@dataclass(frozen=True)
class Mark:
    """A mean with its interval (low, high; None for none) over place `place`, and the seeds' own values."""

    kind: str
    place: int
    mean: float
    interval: tuple[float, float] | None
    values: Sequence[tuple[int, float]]  # seed, value
    name: str


class _Axes:
    """From values to places on the picture; y from 0 up."""

    def __init__(self, x: tuple[float, float], top: float) -> None:
        self.low, self.high, self.top = x[0], max(x[1], x[0] + 1e-9), top or 1.0

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.low) / (self.high - self.low)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / self.top


def lines(series: Sequence[Line], x_label: str, y_label: str, unit: str, alt: str, digits: int = 1) -> str:
    """Curves of runs; the values are written with `digits` and `unit`."""
    points = [point for line in series for point in line.points]
    if not points:
        return _svg(alt, [_text(WIDTH / 2, HEIGHT / 2, "too short a run for a curve", "middle")])
    axes = _Axes((min(0.0, *(x for x, _ in points)), max(x for x, _ in points)), 1.05 * max(y for _, y in points))
    parts = [*_grid(axes, unit), *_x_ticks(axes, ticks(axes.low, axes.high)), *_labels(x_label, y_label)]
    for line in series:
        way = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="run {line.kind}" data-seed="{line.seed}" points="{way}"/>')
        for x, y in line.points:
            tip = f"{line.name}, {x_label} {x:.3g}: {y:.{digits}f}{unit}"
            parts.append(_dot(line.kind, line.seed, axes.x(x), axes.y(y), tip, 2.6))
    return _svg(alt, parts)


def intervals(
    marks: Sequence[Mark], places: Sequence[str], x_label: str, y_label: str, unit: str, alt: str
) -> str:  # fmt: skip
    """Means with intervals side by side over named places, the values of each seed beside them."""
    highest = [value for mark in marks for _, value in mark.values] + [m.interval[1] for m in marks if m.interval]
    axes = _Axes((-0.5, len(places) - 0.5), 1.05 * max(highest))
    parts = [*_grid(axes, unit), *_labels(x_label, y_label)]
    parts += [_text(axes.x(place), HEIGHT - BOTTOM + 17, name, "middle") for place, name in enumerate(places)]
    for mark in marks:
        x = axes.x(mark.place + (-0.16 if mark.kind == "base" else 0.16))
        text = f"{mark.name}: {mark.mean:.1f}{unit}"
        if mark.interval is not None:
            low, high = (max(0.0, value) for value in mark.interval)
            text += f" (95% interval {mark.interval[0]:.1f} to {mark.interval[1]:.1f})"
            ends = f'y1="{axes.y(low):.1f}" y2="{axes.y(high):.1f}"'
            parts.append(f'<line class="bar {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        for seed, value in mark.values:
            tip = f"{mark.name}, seed {seed}: {value:.1f}{unit}"
            parts.append(_dot(mark.kind, seed, x + (9 if mark.kind == "elastic" else -9), axes.y(value), tip, 2.6))
        parts.append(_dot(mark.kind, None, x, axes.y(mark.mean), text, 5.5))
    return _svg(alt, parts)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round numbers within low..high."""
    raw = max(high - low, 1e-9) / (most - 1)
    step = min(
        (factor * 10 ** math.floor(math.log10(raw)) for factor in (1, 2, 5, 10)),
        key=lambda value: (value < raw, value),
    )
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _grid(axes: _Axes, unit: str) -> list[str]:
    parts = []
    for value in ticks(0, axes.top):
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 7, y + 4, f"{value:g}{unit}", "end"))
    return parts


def _x_ticks(axes: _Axes, values: Sequence[float]) -> list[str]:
    return [_text(axes.x(value), HEIGHT - BOTTOM + 17, f"{value:g}", "middle") for value in values]


def _labels(x: str, y: str) -> list[str]:
    turned = f'transform="translate(13 {(HEIGHT - BOTTOM + TOP) / 2:.0f}) rotate(-90)"'
    return [
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, "middle"),
        f'<text class="axis" text-anchor="middle" {turned}>{escape(y)}</text>',
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="axis" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _dot(kind: str, seed: int | None, x: float, y: float, tip: str, radius: float) -> str:
    which = "" if seed is None else f' data-seed="{seed}"'
    focus = ' tabindex="0"' if seed is None else ""
    return (
        f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"{which}{focus} data-tip="{escape(tip)}" '
        f'aria-label="{escape(tip)}"/>'
    )


def _svg(alt: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">'
        + "".join(parts)
        + "</svg>"
    )
