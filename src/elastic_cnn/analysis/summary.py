"""Text tables of `elastic summary`, and Figure 4 of the paper."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from elastic_cnn.analysis.complexity import Complexity, LayerCost, count
from elastic_cnn.analysis.paper import PAPER_ROWS, PaperRow, paper_row
from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write
from elastic_cnn.measure.tables import text_table
from elastic_cnn.zoo import create_model


def describe_network(name: str, network: nn.Module, input_size: Sequence[int]) -> str:
    """Parameters, multiply-adds, elastic blocks and what was not counted; the paper's figures where it has them."""
    cost = count(network, input_size)
    row = paper_row(name) if tuple(input_size) == (3, 224, 224) else None
    header = ["", "parameters", "multiply-adds"]
    rows = [[name, f"{cost.parameters / 1e6:.2f}M", f"{cost.macs / 1e9:.3f}G"]]
    if row is not None:
        rows.append([f"paper: {row.title}", f"{row.parameters:.1f}M", f"{row.macs:.1f}G"])
        if row.released_macs is not None:
            parameters = "" if row.released_parameters is None else f"{row.released_parameters:.2f}M"
            rows.append(["paper's code, measured", parameters, f"{row.released_macs:.3f}G"])
    lines = [text_table(header, rows)]
    if row is not None and row.note:
        lines.append(f"note: {row.note}")
    report = getattr(network, "elastic_report", None)
    lines.append("not elastic" if report is None else str(report))
    lines.append(f"at input {'x'.join(map(str, input_size))}; not counted: {format_uncounted(cost)}")
    return "\n".join(lines)


def format_uncounted(cost: Complexity) -> str:
    """The operators that `macs` leaves out, most frequent first."""
    return ", ".join(f"{name} x{calls}" for name, calls in cost.uncounted.items()) or "nothing"


def measure_paper_networks() -> list[tuple[PaperRow, Complexity]]:
    """Every network of the paper's tables at 224, built on the meta device."""
    return [(row, count(create_model(row.network, device="meta"))) for row in PAPER_ROWS]


def paper_tables(measured: Sequence[tuple[PaperRow, Complexity]]) -> str:
    """Tables 2 and 8 to 11 by family: blocks a stage, parameters, multiply-adds (ours beside the paper's), errors."""
    header = ["network", "blocks per stage", "params", "paper", "MACs", "paper", "its code", "top-1 err", "top-5 err"]
    parts = []
    for family in dict.fromkeys(row.family for row, _ in measured):
        rows = [_paper_line(row, cost) for row, cost in measured if row.family == family]
        parts.append(f"{family}\n{text_table(header, rows)}")
    dead = sorted({row.note for row, _ in measured if row.note})
    parts.append("\n".join(f"note on DLA: {note}" for note in dead))
    parts.append(
        "Errors are the paper's, in per cent on ImageNet val, single crop; this project has not trained on ImageNet."
    )
    kinds = sorted({name for _, cost in measured for name in cost.uncounted})
    parts.append(f"Multiply-adds are those of convolutions and linear layers; not counted: {', '.join(kinds)}.")
    return "\n\n".join(parts)


def _paper_line(row: PaperRow, cost: Complexity) -> list[str]:
    def optional(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    return [
        row.network,
        row.depths,
        f"{cost.parameters / 1e6:.2f}M",
        f"{row.parameters:.1f}M",
        f"{cost.macs / 1e9:.3f}G",
        f"{row.macs:.1f}G",
        "-" if row.released_macs is None else f"{row.released_macs:.3f}G",
        optional(row.top1_error, 2),
        optional(row.top5_error, 2),
    ]


def format_table_1(costs: Sequence[LayerCost]) -> str:
    """Table 1 with each cost also as a multiple of the single-scale layer's."""
    base = costs[0]
    rows = [
        [
            cost.name,
            f"{cost.macs:,.0f}",
            f"{cost.macs / base.macs:.3f}",
            f"{cost.parameters:,.0f}",
            f"{cost.parameters / base.parameters:.3f}",
        ]
        for cost in costs
    ]
    return text_table(["layer", "multiply-adds", "ratio", "parameters", "ratio"], rows)


def save_figure_4(measured: Sequence[tuple[PaperRow, Complexity]], path: str | Path) -> None:
    """Figure 4: top-1 error against parameters and against multiply-adds, base and Elastic joined, as PNG, SVG or PDF.

    Errors are the paper's and marked as such; parameters and multiply-adds are counted here.
    """
    pyplot: Any = require("matplotlib.figure", "figures")
    figure = pyplot.Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    known = [(row, cost) for row, cost in measured if row.top1_error is not None]
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart by the colour-blind too
    for family, colour in zip(dict.fromkeys(row.family for row, _ in known), colours, strict=True):
        members = [(row, cost) for row, cost in known if row.family == family]
        axes[0].plot([], [], "o", color=colour, label=family)
        for axis, value in ((axes[0], _millions), (axes[1], _billions)):
            _plot_family(axis, members, value, colour)
    axes[0].plot([], [], "s", color="gray", markerfacecolor="white", label="base")
    axes[0].plot([], [], "o", color="gray", label="elastic (s: the base's depths)")
    axes[0].legend(fontsize=8)
    for axis, unit in zip(axes, ("parameters (millions)", "multiply-adds (billions)"), strict=True):
        axis.set_xlabel(unit)
        axis.grid(alpha=0.3)
        axis.margins(x=0.08, y=0.08)
    axes[0].set_ylabel("top-1 error on ImageNet (%), the paper's")
    figure.suptitle("Error against cost. Errors as the paper reports them; costs as counted here")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _millions(cost: Complexity) -> float:
    return cost.parameters / 1e6


def _billions(cost: Complexity) -> float:
    return cost.macs / 1e9


def _plot_family(
    axis: Any, members: Sequence[tuple[PaperRow, Complexity]], value: Callable[[Complexity], float], colour: str
) -> None:
    """One family's networks: open squares for bases, dots for elastic ones, a line from each to the base before it."""
    base: tuple[float, float | None] | None = None
    for row, cost in members:
        point = (value(cost), row.top1_error)
        elastic = "lastic" in row.title
        if not elastic:
            base = point
        elif base is not None:
            axis.plot(*zip(base, point, strict=True), color=colour, linewidth=1, alpha=0.5)
        axis.plot(*point, "o" if elastic else "s", color=colour, markerfacecolor=colour if elastic else "white", ms=8)
        depth = re.search(r"X?\d+(x2)?", row.title)
        label = ("s" if "sElastic" in row.title else "") + (depth[0] if depth else "")
        axis.annotate(label, point, (7, -3), textcoords="offset points", fontsize=8)
