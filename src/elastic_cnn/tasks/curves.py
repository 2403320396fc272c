"""The curves of a run as a picture: loss, learning rate, and what validations found, from its CSV files."""

import importlib.util
from pathlib import Path
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write
from elastic_cnn.tasks.run_log import read_log

MOST = 6  # panels of validation scores


def draw_curves(folder: Path, metric: str, best_epoch: int) -> Path | None:
    """Write `curves.png` into a run's folder, again where it is there; None where matplotlib is not installed, or the
    run has no rows to draw.

    metric: the score that decides which weights are best, drawn first; best_epoch: where it was, from 1.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    train, val = _columns(folder / "train.csv"), _columns(folder / "val.csv")
    scores = [name for name in val if name not in ("epoch", "step")]
    scores = sorted(scores, key=lambda name: (name != metric, name != "loss"))[:MOST]
    panels = [("train: " + name, train["step"], train[name]) for name in ("loss", "lr") if name in train]
    panels += [("val: " + name, val["epoch"], val[name]) for name in scores]
    if not panels:
        return None
    across = min(4, len(panels))
    figure: Any = require("matplotlib.figure", "figures").Figure(
        figsize=(3.2 * across, 2.6 * -(-len(panels) // across)), layout="constrained"
    )
    for number, (title, x, y) in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // across), across, number)
        axes.plot(x, y, marker="o" if len(x) < 30 else None, markersize=3, linewidth=1.4, color="#0072B2")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step" if title.startswith("train") else "epoch", fontsize=8)
        axes.tick_params(labelsize=7)
        if title == f"val: {metric}" and best_epoch:
            axes.axvline(best_epoch, color="#D55E00", linewidth=1, linestyle="--")
    path = folder / "curves.png"
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    return path


def _columns(path: Path) -> dict[str, list[float]]:
    """The numbers of a log by column; those that are missing are NaN."""
    rows = read_log(path)
    names = list(rows[0]) if rows else []
    return {name: [_number(row[name]) for row in rows] for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
