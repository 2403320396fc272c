"""From the rows of a Parquet to what a report shows: spreads of cells, and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from elastic_cnn.measure.paired import MeanSpread, PairedDifference, paired_difference
from elastic_cnn.study.grid import ONLY, Comparison, Study

Row = dict[str, Any]
CellKey = tuple[str, str, str]  # network, recipe, data


@dataclass(frozen=True)
class Cell:
    """One network under one recipe on one data set: values of each metric by seed, and what its runs cost."""

    key: CellKey
    values: dict[str, dict[int, float]]
    parameters: int
    macs: int
    views: int
    processor_seconds: MeanSpread | None
    hardware: tuple[str, ...]
    commits: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs."""
        return sorted({seed for by_seed in self.values.values() for seed in by_seed})

    def spread(self, metric: str) -> MeanSpread | None:
        """Over the seeds; None where the metric was not measured."""
        by_seed = self.values.get(metric)
        return MeanSpread.of(list(by_seed.values())) if by_seed else None


@dataclass(frozen=True)
class Compared:
    """A comparison's outcome on one metric. name: which networks; label: under which recipe and data."""

    network: str
    against: str
    label: str
    metric: str
    difference: PairedDifference
    lower_is_better: bool

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not decided`, of the network beside the one that it is compared with."""
        decided = self.difference.decided * (-1 if self.lower_is_better else 1)
        return {1: "better", -1: "worse", 0: "not decided"}[decided]


def lower_is_better(study: Study, metric: str) -> bool:
    """Of errors and losses, and of the study's own metric as the study says."""
    if metric == study.metric:
        return study.lower_is_better
    return "error" in metric or metric.startswith("loss")


def make_cells(rows: Sequence[Row], study: str) -> dict[CellKey, Cell]:
    """The cells of one study, in order of appearance."""
    grouped: dict[CellKey, list[Row]] = {}
    for row in rows:
        if row["study"] == study:
            grouped.setdefault((row["network"], row["recipe"], row["data"]), []).append(row)
    return {key: _make_cell(key, members) for key, members in grouped.items()}


def _make_cell(key: CellKey, rows: list[Row]) -> Cell:
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        values.setdefault(row["metric"], {})[row["seed"]] = row["value"]
    runs = {row["seed"]: row for row in rows}
    seconds = [row["processor_seconds"] for row in runs.values() if row["processor_seconds"] is not None]
    first = rows[0]
    return Cell(
        key=key,
        values=values,
        parameters=first["parameters"],
        macs=first["macs"],
        views=first["views"],
        processor_seconds=MeanSpread.of(seconds) if seconds else None,
        hardware=tuple(sorted({row["hardware"] for row in rows})),
        commits=tuple(sorted({row["commit"] for row in rows})),
    )


def compare(study: Study, cells: dict[CellKey, Cell], metric: str) -> list[Compared]:
    """Every comparison of the study on one metric, pairs being runs of the same seed, recipe and data; then pools."""
    found: list[Compared] = []
    pools: dict[str, list[tuple[float, float]]] = {}
    for comparison in study.comparisons:
        for recipe in study.recipes:
            for data in study.data_sets:
                pairs = _pairs(comparison, recipe, data, cells, metric)
                if not pairs:
                    continue
                label = label_of(recipe, data)
                found.append(_compared(study, comparison.network, comparison.against, label, metric, pairs))
                if comparison.pooled:
                    pools.setdefault(comparison.pooled, []).extend(pairs)
    for name, pairs in pools.items():
        found.append(_compared(study, name, "", "all pairs together", metric, pairs))
    return found


def label_of(recipe: str, data: str) -> str:
    """Recipe and data by name, of a study that has several of them."""
    return ", ".join(part for part in (recipe, data) if part != ONLY)


def _pairs(
    comparison: Comparison, recipe: str, data: str, cells: dict[CellKey, Cell], metric: str
) -> list[tuple[float, float]]:
    sides = [cells.get((name, recipe, data)) for name in (comparison.network, comparison.against)]
    if sides[0] is None or sides[1] is None:
        return []
    first, second = (side.values.get(metric, {}) for side in sides if side is not None)
    return [(first[seed], second[seed]) for seed in sorted(set(first) & set(second))]


def _compared(
    study: Study, network: str, against: str, label: str, metric: str, pairs: list[tuple[float, float]]
) -> Compared:
    difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
    return Compared(network, against, label, metric, difference, lower_is_better(study, metric))


def title_of(study: Study, network: str) -> str:
    """What tables call a network of the study (a pool keeps its name)."""
    entry = study.networks.get(network)
    return (entry.title or network) if entry is not None else network
