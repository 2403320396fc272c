"""From the rows of a Parquet to what a report shows: spreads of cells, and paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from elastic_cnn.measure.paired import MeanSpread, PairedDifference, paired_difference
from elastic_cnn.study.grid import ONLY, Comparison, Study

FEW_PAIRS = 3  # with fewer, pages and pictures say so
Row = dict[str, Any]
CellKey = tuple[str, str, str]  # network, recipe, data
Case = tuple[Comparison, str, str]  # what is compared, under which recipe, on which data


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
    """A comparison's outcome on one metric. network, against: names in the study; of a pool its name, and nothing.
    pairs: both values by seed; of a pool none."""

    network: str
    against: str
    recipe: str
    data: str
    metric: str
    difference: PairedDifference
    lower_is_better: bool
    pairs: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Under which recipe and data, where a study has several."""
        return label_of(self.recipe, self.data) if self.against else "all pairs together"

    @property
    def gain(self) -> PairedDifference:
        """The difference, turned so that above 0 the network is better."""
        return self.difference.turned if self.lower_is_better else self.difference

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `not decided`, of the network beside the one that it is compared with."""
        return {1: "better", -1: "worse", 0: "not decided"}[self.gain.decided]


def lower_is_better(study: Study, metric: str) -> bool:
    """Of errors and losses, and of the study's own metric, at whatever resolution, as the study says."""
    if metric == study.metric or metric.startswith(f"{study.metric}_at_"):
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
    for case in cases(study):
        one = compare_one(study, cells, case, metric)
        if one is None:
            continue
        found.append(one)
        if case[0].pooled:
            pools.setdefault(case[0].pooled, []).extend(one.pairs.values())
    lower = lower_is_better(study, metric)
    for name, pairs in pools.items():
        found.append(Compared(name, "", "", "", metric, _difference(pairs), lower))
    return found


def cases(study: Study) -> list[Case]:
    """Every comparison under every recipe and on all data, by name."""
    return [(one, recipe, data) for one in study.comparisons for recipe in study.recipes for data in study.data_sets]


def compare_one(study: Study, cells: dict[CellKey, Cell], case: Case, metric: str) -> Compared | None:
    """One comparison under one recipe on one data set; None where there are no pairs."""
    comparison, recipe, data = case
    sides = [cells.get((name, recipe, data)) for name in (comparison.network, comparison.against)]
    first, second = (side.values.get(metric, {}) if side is not None else {} for side in sides)
    pairs = {seed: (first[seed], second[seed]) for seed in sorted(set(first) & set(second))}
    if not pairs:
        return None
    lower = lower_is_better(study, metric)
    difference = _difference(list(pairs.values()))
    return Compared(comparison.network, comparison.against, recipe, data, metric, difference, lower, pairs)


def _difference(pairs: Sequence[tuple[float, float]]) -> PairedDifference:
    return paired_difference([a for a, _ in pairs], [b for _, b in pairs])


def difference_of_gains(first: Compared, second: Compared) -> PairedDifference | None:
    """How much more a network gains in the first case than in the second (another metric, recipe or data), over the
    seeds that both have; None where they share none. Above 0: it gains more in the first."""
    shared = sorted(set(first.pairs) & set(second.pairs))
    mine, other = (
        [(-1 if one.lower_is_better else 1) * (one.pairs[seed][0] - one.pairs[seed][1]) for seed in shared]
        for one in (first, second)
    )
    return paired_difference(mine, other) if shared else None


def label_of(recipe: str, data: str) -> str:
    """Recipe and data by name, of a study that has several of them."""
    return ", ".join(part for part in (recipe, data) if part != ONLY)


def names_of(study: Study, network: str, against: str, label: str) -> str:
    """`elastic - base (short)`: what is compared, under which recipe and data."""
    name = title_of(study, network)
    text = f"{name} - {title_of(study, against)}" if against else name
    return f"{text} ({label})" if label else text


def title_of(study: Study, network: str) -> str:
    """What tables call a network of the study (a pool keeps its name)."""
    entry = study.networks.get(network)
    return (entry.title or network) if entry is not None else network
