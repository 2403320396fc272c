"""The report's charts of the scale policy, as SVG for a light and a dark page."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_cnn.demo.results import Results
from elastic_cnn.extras import require
from elastic_cnn.policy.figures.style import plain, use_fonts_for, without_boxes


@dataclass(frozen=True)
class Theme:
    """Colours on a page."""

    text: str
    faint: str
    grid: str
    score: str
    ramp: tuple[float, float]


LIGHT = Theme("#1f2430", "#6b7280", "#e5e7eb", "#0f766e", (0.02, 0.92))
DARK = Theme("#e6e8ee", "#9aa1ad", "#343a46", "#2dd4bf", (0.22, 1.0))
WIDTH, HEIGHT = 5.2, 3.5  # inches; a page shows a chart at 500 pixels or less

Chart = Callable[[Results, Theme], bytes]


def correlations(results: Results, theme: Theme) -> bytes:
    """Spearman's correlation of the object's size and the score, at each block."""
    policy = results.policy
    assert policy.correlations is not None
    figure, axes = _figure(theme)
    rho, low, high = np.array(policy.correlations).T
    places = np.arange(len(rho))
    spread = np.stack([rho - low, high - rho]).clip(0)
    axes.barh(places, rho, 0.66, color=theme.score, xerr=spread, ecolor=theme.text, error_kw={"linewidth": 1.2})
    axes.axvline(0, color=theme.faint, linewidth=1)
    axes.set_yticks(places, [_block_name(block) for block in policy.blocks])
    axes.invert_yaxis()
    limit = min(1.0, 1.15 * max(0.1, float(np.abs([low, high]).max())))
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("Spearman correlation of digit height and score")
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def score_by_size(results: Results, theme: Theme) -> bytes:
    """Each block's mean score over the object's size, in standard deviations of the block."""
    policy, sizes = results.policy, results.sizes
    assert sizes is not None
    figure, axes = _figure(theme)
    parts = np.array_split(np.argsort(sizes, kind="stable"), max(1, min(10, len(sizes) // 5)))
    centres = [float(np.exp(np.log(sizes[part]).mean())) for part in parts]
    means = np.stack([policy.relative[part].mean(axis=0) for part in parts])  # (parts, blocks)
    colours = _ramp(theme)(np.linspace(0.08, 0.92, means.shape[1]))
    for block, colour in enumerate(colours):
        strongest = block == policy.strongest
        axes.plot(
            centres, means[:, block], "o-", color=colour, markersize=4 if strongest else 3,
            linewidth=3 if strongest else 1.5, label=policy.blocks[block].name,
        )  # fmt: skip
    axes.axhline(0, color=theme.faint, linewidth=1)
    axes.set_xscale("log")
    _log_pixels(axes.xaxis, [8, 12, 16, 24, 32, 48])
    axes.set_xlim(min(centres) * 0.95, max(centres) * 1.05)
    axes.set_xlabel("height of the digit, pixels")
    axes.set_ylabel("score, deviations  (coarse ← → fine)")
    figure.legend(loc="outside lower center", frameon=False, labelcolor=theme.text, ncols=4, fontsize=8)
    return _svg(figure)


def policy_map(results: Results, theme: Theme) -> bytes:
    """t-SNE of the policies; colour: the object's size, or the mean score where sizes are not known."""
    policy = results.policy
    figure, axes = _figure(theme, height=4.2)
    if results.sizes is not None:
        values, label = results.sizes[policy.shown], "height of the digit, pixels"
        norm = require("matplotlib.colors", "figures").LogNorm(results.sizes.min(), results.sizes.max())
    else:
        values, label = policy.relative.mean(axis=1)[policy.shown], "mean score, deviations (coarse ← → fine)"
        bound = float(np.abs(np.percentile(values, [2, 98])).max())
        norm = require("matplotlib.colors", "figures").Normalize(-bound, bound)
    points = axes.scatter(*policy.map.T, c=values, s=9, cmap=_ramp(theme), norm=norm, linewidth=0, rasterized=True)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    with _style(theme):
        bar = figure.colorbar(points, ax=axes, orientation="horizontal", pad=0.02, shrink=0.8, aspect=34)
        bar.outline.set_visible(False)
        bar.set_label(label)
    if results.sizes is not None:
        _log_pixels(bar.ax.xaxis, [8, 12, 16, 24, 32, 48])
    return _svg(figure)


def _block_name(block: Any) -> str:
    place = "" if block.height is None else f"  {block.height}\N{MULTIPLICATION SIGN}{block.width}"
    return plain(block.name, 24) + place


def _log_pixels(axis: Any, ticks: list[int]) -> None:
    """Plain numbers on a logarithmic axis."""
    ticker = require("matplotlib.ticker", "figures")
    axis.set_major_locator(ticker.FixedLocator(ticks))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())


def _ramp(theme: Theme) -> Any:
    """Sizes as colours, without the end of the ramp that vanishes on the page."""
    colours = require("matplotlib", "figures").colormaps["viridis"](np.linspace(*theme.ramp, 256))
    return require("matplotlib.colors", "figures").ListedColormap(colours)


def _figure(theme: Theme, width: float = WIDTH, height: float = HEIGHT) -> tuple[Any, Any]:
    """A figure with one set of axes in the theme's colours, that no global state knows."""
    with _style(theme):
        figure = require("matplotlib.figure", "figures").Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    figure.theme = theme
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _style(theme: Theme) -> Any:
    settings = {
        "font.size": 10, "svg.fonttype": "path", "svg.hashsalt": "elastic-cnn", "text.color": theme.text,
        "axes.labelcolor": theme.text, "axes.edgecolor": theme.faint, "xtick.color": theme.faint,
        "ytick.color": theme.faint, "xtick.labelcolor": theme.text, "ytick.labelcolor": theme.text,
        "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none",
    }  # fmt: skip
    return require("matplotlib", "figures").rc_context(settings)


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with _style(figure.theme), without_boxes():
        use_fonts_for(figure)
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    return buffer.getvalue()
