"""The results of `benchmark` as text and as Markdown."""

from collections.abc import Sequence
from typing import Any

from elastic_cnn.analysis.benchmark.breakdown import format_breakdown
from elastic_cnn.measure.machine import machine_line
from elastic_cnn.measure.tables import text_table

RATIOS = ("of base, same form", "of base, eager", "of base, fastest")
HEADER = ("network", "form", "ms", "95%", "images/s", "MB", "of FMA peak", *RATIOS)


def describe_peaks(peaks: dict[str, Any]) -> str:
    """One line: measured operations and bytes a second."""
    threads = "1 thread" if peaks["threads"] == 1 else f"{peaks['threads']} threads"
    narrow = f" ({peaks['bf16_flops'] / 1e9:.0f} in bfloat16)" if peaks.get("bf16_flops") else ""
    flops, memory = f"{peaks['flops'] / 1e9:.0f} GFLOP/s", f"{peaks['bytes'] / 1e9:.1f} GB/s"
    return f"{threads}: at most {flops} on registers{narrow}, {memory} of memory"


def rows_of(cell: dict[str, Any]) -> list[list[str]]:
    """The figures of one cell, a list of texts a row, as `HEADER` names them."""
    bases = [row for row in cell["rows"] if _is_base(row)]
    fastest = min(bases, key=lambda row: row["ms"]["median"])["form"] if bases else ""
    return [
        [
            row["network"],
            row["form"],
            f"{row['ms']['median']:.1f}",
            f"{row['ms']['low']:.1f} to {row['ms']['high']:.1f}",
            f"{row['images_per_s']:.1f}",
            f"{row['memory'] / 1e6:.0f}" if row["memory"] else "-",
            f"{100 * row['of_peak']:.0f}%" if row.get("of_peak") else "-",
            _ratio(row, row["form"]),
            _ratio(row, "eager"),
            _ratio(row, fastest),
        ]
        for row in cell["rows"]
    ]


def _is_base(row: dict[str, Any]) -> bool:
    own = row.get("ratios", {}).get(row["form"])
    return bool(own) and own["low"] == own["high"] == 1


def _ratio(row: dict[str, Any], form: str) -> str:
    ratio = row.get("ratios", {}).get(form)
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "-"


def title_of(cell: dict[str, Any], size: int) -> str:
    """What the members of a cell have in common."""
    threads = "1 thread" if cell["threads"] == 1 else f"{cell['threads']} threads"
    return f"{cell['job']}, batch {cell['batch']}, {size}x{size}, {cell['dtype']}, {threads}"


def _without_empty(header: Sequence[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without the columns that hold nothing."""
    kept = [place for place in range(len(header)) if not rows or any(row[place] != "-" for row in rows)]
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


def format_table(results: dict[str, Any]) -> str:
    """All figures for the terminal, with what could not be measured and why."""
    parts = ["\n".join([machine_line(results["machine"]), *map(describe_peaks, results.get("peaks", []))])]
    for cell in results["cells"]:
        rows = rows_of(cell)
        lines = [title_of(cell, results["request"]["size"]), text_table(*_without_empty(HEADER, rows), left=2)]
        lines += [f"not measured: {o['network']}, {o['form']}: {o['reason']}" for o in cell["unavailable"]]
        parts.append("\n".join(lines))
    for entry in results.get("breakdown", []):
        parts.append(format_breakdown(f"{entry['network']}, {entry['job']}, batch {entry['batch']}", entry["parts"]))
    parts.append(
        "ms and ratios: medians of the rounds; under 95% and in brackets their intervals by the bootstrap."
        if any(row.get("ratios") for cell in results["cells"] for row in cell["rows"])
        else "ms: median of the rounds, its interval by the bootstrap; --against BASE times another network beside it."
    )
    return "\n\n".join(parts)
