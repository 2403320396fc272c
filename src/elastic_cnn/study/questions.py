"""What studies answer beyond who wins: on which data, at which sizes, resolutions, budgets, in what time, beside whom.

Which comparison of a study belongs to which question follows from what the study is: it names metrics of small and
large objects, tests at other resolutions, has recipes that differ in their views alone, divides layers in several ways,
scales views to equal time, or marks rivals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elastic_cnn.measure.paired import PairedDifference
from elastic_cnn.study.grid import ONLY, Comparison, Run, Study
from elastic_cnn.study.tables import (
    Case,
    Cell,
    CellKey,
    Compared,
    cases,
    compare,
    compare_one,
    difference_of_gains,
    label_of,
)
from elastic_cnn.study.units import metric_title

PLAIN, CLUTTERED = "_plain", "_cluttered"  # how metrics end that are of images without and with clutter
EQUAL_VIEWS = "at equal views"
RESAMPLING = {"downsample", "upsample"}  # keys of an `ElasticSpec`
Cells = dict[CellKey, Cell]


@dataclass(frozen=True)
class Point:
    """Where along the question's axis, "" where it has none; None of a comparison without pairs."""

    label: str
    found: Compared | None


@dataclass(frozen=True)
class Series:
    """One comparison of a study at one or more points. network, against: names in it; of a pool its own, and nothing.

    ends: the difference of its gains between the two points that the question asks about, None where it has one point
    or no common seeds. note: what is said of it besides.
    """

    study: Study
    network: str
    against: str
    label: str
    metric: str
    points: tuple[Point, ...]
    ends: PairedDifference | None = None
    note: str = ""

    @property
    def known(self) -> list[tuple[str, Compared]]:
        """The points with pairs, by label."""
        return [(point.label, point.found) for point in self.points if point.found is not None]


@dataclass(frozen=True)
class Question:
    """needs: what a study must have to answer it. ends: what is said where, of the two points whose gains are compared,
    the first has the larger gain, the smaller one, or neither is told."""

    name: str
    title: str
    needs: str
    find: Callable[[Study, Cells], list[Series]]
    ends: tuple[str, str, str] | None = None


def _row(study: Study, cells: Cells, case: Case, note: str = "") -> Series:
    """A comparison on the study's metric: one point."""
    return _series(study, case, study.metric, [Point("", compare_one(study, cells, case, study.metric))], note=note)


def _series(study: Study, case: Case, metric: str, points: Sequence[Point], **more: Any) -> Series:
    pair, recipe, data = case
    return Series(study, pair.network, pair.against, label_of(recipe, data), metric, tuple(points), **more)


def _along(study: Study, case: Case, points: Sequence[Point], ends: tuple[int, int]) -> list[Series]:
    """A comparison at several points, nothing where no point has pairs. ends: places of the points to compare."""
    known = [point.found for point in points if point.found is not None]
    if not known:
        return []
    first, second = (points[place].found for place in ends)
    more = None if first is None or second is None else difference_of_gains(first, second)
    return [_series(study, case, known[0].metric, points, ends=more)]


def at_equal_time(study: Study, pair: Comparison) -> bool:
    """Whether one side's views were scaled to the other's time."""
    one, other = (study.networks[name].equal_time_to for name in (pair.network, pair.against))
    return one == pair.against or other == pair.network


def has_rival(study: Study, pair: Comparison) -> bool:
    """Whether a side is marked as a rival."""
    return any(study.networks[name].rival for name in (pair.network, pair.against))


def _has_rivals(study: Study) -> bool:
    return any(entry.rival for entry in study.networks.values())


def _divisions(study: Study) -> set[str]:
    """What the networks' specs vary: keys of an `ElasticSpec`; `stages` where they differ from stage to stage."""
    keys: set[str] = set()
    for entry in study.networks.values():
        spec = entry.kwargs.get("spec")
        keys |= {key if isinstance(key, str) else "stages" for key in spec} if isinstance(spec, dict) else set()
        keys |= {"stages"} if entry.shares_from is not None else set()
    return keys


def _budgets(study: Study) -> list[list[str]]:
    """Names of recipes that differ in their views alone, fewest views first."""
    groups: dict[object, list[str]] = {}
    for name, training in study.recipes.items():
        if training.views is not None:
            groups.setdefault(replace(training, views=None), []).append(name)
    alike = [sorted(names, key=lambda name: study.recipes[name].views) for names in groups.values()]
    return [names for names in alike if len({study.recipes[name].views for name in names}) > 1]


def _is_plain(study: Study) -> bool:
    """Whether it asks who wins, not of budgets, divisions of layers or rivals."""
    return not (_budgets(study) or _divisions(study) or _has_rivals(study))


def _plain_cases(study: Study) -> list[Case]:
    return [case for case in cases(study) if _is_plain(study) and not at_equal_time(study, case[0])]


def by_data(study: Study, cells: Cells) -> list[Series]:
    """Every comparison at equal views, and those of pairs that are taken together."""
    series = [_row(study, cells, case) for case in _plain_cases(study)]
    pools = [one for one in compare(study, cells, study.metric) if series and not one.against]
    return series + [Series(study, one.network, "", one.label, one.metric, (Point("", one),)) for one in pools]


def _over_metrics(study: Study, cells: Cells, metrics: Sequence[tuple[str, str]]) -> list[Series]:
    """Each plain comparison on several metrics (label, metric), the first beside the last."""
    series = []
    for case in _plain_cases(study):
        points = [Point(label, compare_one(study, cells, case, metric)) for label, metric in metrics]
        series += _along(study, case, points, (0, -1))
    return series


def _measured(cells: Cells) -> list[str]:
    return sorted({metric for cell in cells.values() for metric in cell.values})


def by_size(study: Study, cells: Cells) -> list[Series]:
    """The gain on small, medium (where that is measured) and large objects."""
    if study.small_metric is None or study.large_metric is None:
        return []
    metrics = [("small", study.small_metric), ("large", study.large_metric)]
    medium = study.small_metric.replace("small", "medium")
    if medium != study.small_metric and medium in _measured(cells):
        metrics.insert(1, ("medium", medium))
    return _over_metrics(study, cells, [(_size_label(word, metric), metric) for word, metric in metrics])


def _size_label(word: str, metric: str) -> str:
    """The range where the metric's title has one (`error, 8-14.5 px (%)`), else the word."""
    return metric_title(metric).removesuffix(" (%)").partition(", ")[2] or word


def by_clutter(study: Study, cells: Cells) -> list[Series]:
    """The gain on images with clutter and without, on each metric that was measured on both."""
    measured = _measured(cells)
    names = [name.removesuffix(PLAIN) for name in measured if name.endswith(PLAIN)]
    series = []
    for name in names:
        if name + CLUTTERED in measured:
            series += _over_metrics(study, cells, [("cluttered", name + CLUTTERED), ("plain", name + PLAIN)])
    return series


def by_resolution(study: Study, cells: Cells) -> list[Series]:
    """The gain at the resolutions of the study's `stress`, and at that of training."""
    series = []
    for case in _plain_cases(study) if study.stress else []:
        pair, recipe, data = case
        trained = Run(study, pair.network, recipe, data, study.seeds[0]).make_recipe().image_size
        metrics = {side: f"{study.metric}_at_{side}" for side in study.stress}
        if isinstance(trained, int):
            metrics[trained] = study.metric
        sides = sorted(metrics)
        points = [
            Point(f"{side} px{' (trained)' if side == trained else ''}", compare_one(study, cells, case, metrics[side]))
            for side in sides
        ]
        series += _along(study, case, points, (-1, sides.index(trained) if trained in metrics else 0))
    return series


def by_budget(study: Study, cells: Cells) -> list[Series]:
    """The gain under recipes that differ in their views alone."""
    series = []
    for recipes in _budgets(study):
        for pair in study.comparisons:
            for data in study.data_sets:
                points = [
                    Point(f"{study.recipes[name].views:,} views",
                          compare_one(study, cells, (pair, name, data), study.metric))
                    for name in recipes
                ]  # fmt: skip
                series += _along(study, (pair, ONLY, data), points, (-1, 0))
    return series


def by_resampling(study: Study, cells: Cells) -> list[Series]:
    """Comparisons of a study whose networks differ in how a branch's maps are resampled (Table 6)."""
    mine = bool(_divisions(study)) and _divisions(study) <= RESAMPLING
    return [_row(study, cells, case) for case in cases(study) if mine]


def by_shares(study: Study, cells: Cells) -> list[Series]:
    """Comparisons of a study whose networks differ in how layers are divided (Table 7)."""
    return [_row(study, cells, case) for case in cases(study) if not _divisions(study) <= RESAMPLING]


def at_time(study: Study, cells: Cells) -> list[Series]:
    """Comparisons at equal time, each below the same networks at equal views where the study has them."""
    series = []
    for pair, recipe, data in cases(study):
        if at_equal_time(study, pair) and not has_rival(study, pair):
            timed, plain = _row(study, cells, (pair, recipe, data)), _untimed(study, pair)
            if plain is not None and timed.known:
                series.append(_row(study, cells, (plain, recipe, data), EQUAL_VIEWS))
            series.append(timed)
    return series


def _untimed(study: Study, pair: Comparison) -> Comparison | None:
    """The study's comparison of the same two networks whose views were not scaled."""

    def entries(one: Comparison) -> list[object]:
        return [replace(study.networks[name], equal_time_to=None, title=None) for name in (one.network, one.against)]

    alike = [one for one in study.comparisons if one != pair and entries(one) == entries(pair)]
    return next((one for one in alike if not at_equal_time(study, one)), None)


def beside_rivals(study: Study, cells: Cells) -> list[Series]:
    """Comparisons of a study that marks rivals."""
    return [
        _row(study, cells, case)
        for case in cases(study)
        if _has_rivals(study) and (has_rival(study, case[0]) or not at_equal_time(study, case[0]))
    ]


ALONE = ", in a study without several budgets, divisions of layers or rivals"
QUESTIONS = (
    Question("data", "On which data, at equal views?", "comparisons", by_data),
    Question("size", "Small objects or large ones?", f"`small_metric` and `large_metric`{ALONE}", by_size,
             ("small objects gain more than large ones", "large objects gain more than small ones",
              "small and large objects are not told apart")),
    Question("clutter", "In clutter and texture?", f"metrics `NAME{PLAIN}` and `NAME{CLUTTERED}`{ALONE}", by_clutter,
             ("it gains more in clutter", "it gains more without clutter",
              "the gains in clutter and without are not told apart")),
    Question("resolution", "At other resolutions than it was trained at?", f"`stress`{ALONE}", by_resolution,
             ("the gain is larger at the largest resolution than at that of training",
              "the gain is smaller at the largest resolution than at that of training",
              "the gain at the largest resolution is not told apart from that at the resolution of training")),
    Question("budget", "With a longer training?", "recipes that differ in `views` alone", by_budget,
             ("the gain is larger under the largest budget than under the smallest",
              "the gain is smaller under the largest budget than under the smallest",
              "the gain under the largest budget is not told apart from that under the smallest")),
    Question("resampling", "How should the low branch go down and up (Table 6)?",
             "networks whose `spec` has other ways of resampling", by_resampling),
    Question("shares", "How should a layer be divided (Table 7)?", "networks whose `spec` has other shares or scales",
             by_shares),
    Question("time", "At equal time of training?", "networks with `equal_time_to`", at_time),
    Question("rivals", "Beside its rivals?", "networks with `rival: true`", beside_rivals),
)  # fmt: skip
