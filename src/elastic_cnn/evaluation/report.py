"""The report of a test: a folder with one HTML page, and its tables as CSV and JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from elastic_cnn.evaluation import tables
from elastic_cnn.evaluation.collect import Answers
from elastic_cnn.evaluation.page import Pictures, against_lines, class_table, render
from elastic_cnn.evaluation.pictures import contact_sheet, draw_confusion, draw_reliability, mistakes
from elastic_cnn.extras import require
from elastic_cnn.files import refuse_unwritable_folder, write_csv, write_json, write_text
from elastic_cnn.measure.machine import device_line, versions_line
from elastic_cnn.measure.proportions import Proportion
from elastic_cnn.measure.tables import text_table
from elastic_cnn.text import printable_lines

FILES = (
    "index.html", "report.json", "classes.csv", "confusion.csv", "predictions.csv", "confusion.png", "reliability.png",
    "worst.jpg",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A report that was written. `str()` is for a terminal; notebooks show its page.

    found: what report.json holds. files: what was written, index.html first.
    """

    folder: Path
    found: Mapping[str, Any]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        rows = self.found["classes"]
        header, cells = class_table(rows)
        shown = text_table(header, cells[:30]) + (f"\n... and {len(rows) - 30} more classes" if len(rows) > 30 else "")
        lines = [self.found["headline"], *self.found["lines"]]
        if self.found["against"] is not None:
            lines.append(self.found["against"]["text"])
        return printable_lines("\n".join([*lines, shown, f"report: {self.folder / 'index.html'}"]))

    def _repr_html_(self) -> str:
        from html import escape

        content = escape((self.folder / "index.html").read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{content}" style="width:100%;height:640px;border:0"></iframe>'


def refuse_taken(out: str | Path, overwrite: bool) -> Path:
    """The folder `out`, if a report may be written there. `ValueError` where one lies in it already."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder for the report")
    taken = [name for name in FILES if (folder / name).exists()]
    if taken and not overwrite:
        raise ValueError(f"{folder} holds a report already ({taken[0]}): choose another folder, or pass --overwrite")
    return refuse_unwritable_folder(folder)


def write_report(
    answers: Answers,
    out: str | Path,
    *,
    data: str,
    split: str,
    checkpoint: str,
    base: tuple[str, Answers] | None = None,
    tta: str = "",
    overwrite: bool = False,
) -> Report:
    """Write the report of `answers` into the folder `out`.

    base: another network by name, and its answers on the same photos. Raises `ValueError` where the folder holds a
    report, or the two networks were not tested on the same photos.
    """
    folder = refuse_taken(out, overwrite)
    require("matplotlib", "figures")
    found = _findings(answers, data, split, checkpoint, base, tta)
    for name in FILES:  # what an earlier report had and this one lacks
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    counts = None if answers.several else tables.confusion(answers)
    if counts is not None:
        names = ["truth", *answers.classes]
        rows = [[name, *map(int, row)] for name, row in zip(answers.classes, counts, strict=True)]
        write_csv(folder / "confusion.csv", names, rows)
    pictures = _draw(answers.classes, counts, tables.calibration(answers), folder)
    wrong = mistakes(answers, tables.worst(answers))
    contact_sheet(wrong, folder / "worst.jpg")
    columns = list(found["classes"][0])
    write_csv(folder / "classes.csv", columns, [[row[key] for key in columns] for row in found["classes"]])
    write_csv(folder / "predictions.csv", *_predictions(answers))
    write_json(folder / "report.json", found)
    write_text(folder / "index.html", render(found, pictures, wrong))
    return Report(folder, found, tuple(folder / name for name in FILES if (folder / name).exists()))


def _draw(
    classes: Sequence[str], counts: np.ndarray | None, calibration: tables.Calibration, folder: Path
) -> dict[str, Pictures]:
    """Write the charts into the folder, and {name: the chart on white, on dark} for the page."""
    drawn: dict[str, list[bytes]] = {}
    with TemporaryDirectory() as other:
        for dark, place in ((False, folder), (True, Path(other))):
            charts = {"reliability": draw_reliability(calibration, place / "reliability", dark)}
            if counts is not None:
                charts["confusion"] = draw_confusion(counts, classes, place / "confusion", dark)
            for name, path in charts.items():
                drawn.setdefault(name, []).append(path.read_bytes())
    return {name: Pictures(*both) for name, both in drawn.items()}


def _findings(
    answers: Answers, data: str, split: str, checkpoint: str, base: tuple[str, Answers] | None, tta: str
) -> dict[str, Any]:
    """What report.json holds: JSON values."""
    import torch

    calibration, error = tables.calibration(answers), Proportion.of(~answers.right)
    results = dict(answers.results)
    what = "of the photos have a wrong label" if answers.several else "of the photos are answered wrongly"
    lines = [
        f"{error.count} of {error.total} ({100 * error.value:.1f}%, 95% interval {100 * error.low:.1f} to "
        f"{100 * error.high:.1f}) {what}.",
        f"Expected calibration error {100 * calibration.error:.1f} points ({tables.BINS} bins).",
    ]
    if results["unreadable"]:
        lines.append(f"{results['unreadable']} photos could not be read and are left out.")
    found: dict[str, Any] = {
        "checkpoint": checkpoint,
        "data": data,
        "split": split,
        "tta": tta,
        "headline": results["headline"],
        "lines": lines,
        "results": results,
        "error": error.to_json(),
        "classes": tables.by_class(answers),
        "calibration": {
            "error": calibration.error,
            "bins": [list(bin_) for bin_ in calibration.bins],
            "answers": answers.probabilities.size if answers.several else error.total,
        },
        "sizes": tables.by_size(answers),
        "thresholds": dict(zip(answers.classes, tables.thresholds(answers), strict=True)) if answers.several else None,
        "against": None,
        "details": [
            f"{checkpoint} on {split} of {data}{f', views {tta}' if tta else ''}.",
            f"Intervals of parts are Wilson's, over the photos; they say nothing of other trainings. "
            f"{versions_line()}; {device_line(torch.device('cpu'))}.",
        ],
    }
    if base is not None:
        other = tables.against(answers, base[1])
        found["against"] = {"other": base[0], **other, "text": against_lines(other, base[0])}
    return found


def _predictions(answers: Answers) -> tuple[list[str], list[list[Any]]]:
    """A row a photo: path, truth, answer, confidence, whether it is right, loss."""
    header = ["path", "truth", "answer", "confidence", "right", "loss"]
    rows, right, losses = [], answers.right, answers.loss
    for row, path in enumerate(answers.paths):
        chances = answers.probabilities[row]
        if answers.several:
            truth = ";".join(answers.classes[c] for c in np.flatnonzero(answers.truth[row]))
            answer = ";".join(answers.classes[c] for c in np.flatnonzero(chances > 0.5))
        else:
            truth, answer = answers.classes[answers.truth[row]], answers.classes[answers.predicted[row]]
        confidence, loss = f"{chances.max():.6g}", f"{losses[row]:.6g}"
        rows.append([path, truth, answer, confidence, int(right[row]), loss])
    return header, rows
