"""A policy table as the browser takes it: typed arrays by row, and each name once."""

import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from elastic_cnn.policy.table import PolicyTable

MOST_ROWS = 500_000  # the browser's limit on the height of the scrolled page, with room for narrow windows
KINDS = {np.dtype("<f4"): "f4", np.dtype("u1"): "u1", np.dtype("<u4"): "u4"}
UNKNOWN = 2  # of `correct`: 0 wrong, 1 right


class Names:
    """Numbers for names; the network's classes come first, in its order."""

    def __init__(self, classes: Sequence[str]):
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(classes))}

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def all(self) -> list[str]:
        return list(self._numbers)


def browser_columns(table: PolicyTable) -> tuple[dict[str, np.ndarray], Names]:
    """The columns by name, and the names that `*_names` columns number.

    `KIND_names` holds the numbers of the names of all rows in a line, `KIND_starts` (N + 1) where each row's begin.
    `top_*` are the most probable classes, where the table has them; `features` (N x D bytes) is of plain networks.
    `iou` is of segmentation. `correct` and `base_correct` are 0, 1 or `UNKNOWN`. Confidence is NaN where it is unknown.
    """
    names = Names(table.info.classes)
    columns: dict[str, np.ndarray] = {}
    kinds = ["label", "prediction", *(["base_prediction"] if table.has_base else [])]
    for kind in kinds:
        lists = [_as_list(value) for value in table.column(kind)]
        columns[f"{kind}_starts"] = _starts(lists)
        flat = itertools.chain.from_iterable(lists)
        columns[f"{kind}_names"] = np.array([names.number(name) for name in flat], np.uint32)
    for prefix in ("", "base_") if table.has_base else ("",):
        confidence = table.rows[f"{prefix}confidence"].to_numpy()
        columns[f"{prefix}confidence"] = confidence.astype(np.float32)
        correct = [UNKNOWN if value is None else int(value) for value in table.column(f"{prefix}correct")]
        columns[f"{prefix}correct"] = np.array(correct, np.uint8)
    if table.info.top:
        ranked = table.column("top_classes")
        columns["top_starts"] = _starts(ranked)
        columns["top_names"] = np.array(
            [names.number(name) for name in itertools.chain.from_iterable(ranked)], np.uint32
        )
        flat = itertools.chain.from_iterable(table.column("top_probabilities"))
        columns["top_values"] = np.array(list(flat), np.float32)
    if "iou" in table.rows.column_names:
        columns["iou"] = np.array([np.nan if value is None else value for value in table.column("iou")], np.float32)
    if not table.info.blocks:
        columns["features"] = quantized(table.features).reshape(-1)
    sizes = [value or [] for value in table.column("object_sizes")]
    if any(sizes):
        columns["size_starts"] = _starts(sizes)
        columns["size_values"] = np.array(list(itertools.chain.from_iterable(sizes)), np.float32)
    return columns, names


def quantized(features: np.ndarray) -> np.ndarray:
    """(N, D) uint8: features (N, D) in 256 steps, every dimension in the same ones, outliers cut (0.1% at each end)."""
    low, high = np.percentile(features, [0.1, 99.9])
    return np.clip((features - low) / (high - low if high > low else 1) * 255, 0, 255).round().astype(np.uint8)


def present_classes(columns: dict[str, np.ndarray]) -> tuple[list[int], bool]:
    """The numbers of the names that photos are filed under, and whether these are labels (else predictions)."""
    has_labels = len(columns["label_names"]) > 0
    numbers = columns["label_names" if has_labels else "prediction_names"]
    return np.unique(numbers).tolist(), has_labels


def category_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) int64: the first label of each row (its first prediction, where no row has a label); -1 for none."""
    kind = "label" if len(columns["label_names"]) else "prediction"
    starts, numbers = columns[f"{kind}_starts"].astype(np.int64), columns[f"{kind}_names"].astype(np.int64)
    filled = starts[1:] > starts[:-1]
    category = np.full(len(filled), -1, np.int64)
    category[filled] = numbers[starts[:-1][filled]]
    return category


def block_summary(table: PolicyTable) -> list[dict[str, Any]]:
    """Each block with what the charts need: range (1st and 99th percentile), mean, deviation, and deciles 1 and 9."""
    if not table.info.blocks:
        return []
    low, q10, q90, high = np.percentile(table.scores, [1, 10, 90, 99], axis=0)
    mean, deviation = table.scores.mean(axis=0, dtype=np.float64), table.scores.std(axis=0, dtype=np.float64)
    return [
        {
            **block.to_dict(),
            "low": float(low[i]),
            "high": float(high[i]),
            "q10": float(q10[i]),
            "q90": float(q90[i]),
            "mean": float(mean[i]),
            "deviation": float(deviation[i]),
        }
        for i, block in enumerate(table.info.blocks)
    ]


def encode(array: np.ndarray) -> list[str]:
    """Kind and little-endian bytes in base64, as store.js decodes them. `ValueError` for other kinds of numbers."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    kind = KINDS.get(little.dtype)
    if kind is None:
        raise ValueError(f"no browser array for {array.dtype}")
    return [kind, base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")]


def script(name: str, value: Any) -> str:
    """A classic script that hands `value` to the page: file:// pages can load those, and nothing else. All ASCII."""
    return f"ElasticExplorer.receive({json.dumps(name)}, {json.dumps(value, allow_nan=False)});\n"


def _as_list(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _starts(lists: Sequence[Sequence[Any]]) -> np.ndarray:
    lengths = np.fromiter((len(entry) for entry in lists), np.int64, len(lists))
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)
