"""Predictions as a file: CSV or Parquet with a row a photo, or JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.files import atomic_write, write_csv, write_json

KINDS = (".csv", ".json", ".parquet")


def check_kind(path: str | Path) -> Path:
    """`path`, if its ending is one of `KINDS`; else `ValueError`."""
    path = Path(path)
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path}: predictions are written as {', '.join(KINDS)}: choose one of these endings")
    return path


def write_predictions(path: str | Path, answers: Sequence[dict[str, Any]]) -> Path:
    """Write answers (`Prediction.to_dict`, or `path` and `error`), atomically, by the ending of `path`.

    A table's columns: path, answer (several are joined by `;`), then class_1, probability_1 and so on, best first, and
    error.
    """
    path = check_kind(path)
    if path.suffix.lower() == ".json":
        write_json(path, answers)
        return path
    columns, rows = _table(answers)
    if path.suffix.lower() == ".csv":
        write_csv(path, columns, [[row[name] for name in columns] for row in rows])
        return path
    arrow: Any = require("pyarrow", "figures")
    parquet: Any = require("pyarrow.parquet", "figures")
    kinds = [(name, arrow.float64() if name.startswith("probability") else arrow.string()) for name in columns]
    with atomic_write(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist(rows, arrow.schema(kinds)), temporary)
    return path


def _table(answers: Sequence[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    most = max((len(answer.get("classes", ())) for answer in answers), default=0)
    columns = ["path", "answer"]
    for number in range(1, most + 1):
        columns += [f"class_{number}", f"probability_{number}"]
    rows = []
    for answer in answers:
        row: dict[str, Any] = dict.fromkeys([*columns, "error"])
        row |= {"path": answer["path"], "error": answer.get("error")}
        if "classes" in answer:
            row["answer"] = ";".join(entry["class"] for entry in answer["classes"] if entry["predicted"])
        for number, entry in enumerate(answer.get("classes", ()), 1):
            row[f"class_{number}"], row[f"probability_{number}"] = entry["class"], entry["probability"]
        rows.append(row)
    return [*columns, "error"], rows
