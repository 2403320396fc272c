"""Parts of a study's section in the report: budget, gain by size, other resolutions, explanations with their test."""

from collections.abc import Sequence
from pathlib import Path

from elastic_cnn.measure.tables import markdown_table
from elastic_cnn.study.grid import ONLY, Study
from elastic_cnn.study.results import read_timing
from elastic_cnn.study.tables import Cell, CellKey, Compared, compare, difference_of_gains, names_of, title_of
from elastic_cnn.study.units import metric_title, show_difference, show_interval, show_spread

END_LOSS = "train_loss_end"
VERBS = {"better": "is better than", "worse": "is worse than", "not decided": "is not told apart from"}


def join(lines: list[str]) -> list[str]:
    """The lines and an empty one, or nothing."""
    return [*lines, ""] if lines else []


def budget_lines(study: Study, cells: dict[CellKey, Cell]) -> list[str]:
    """Data, recipe, seeds, hardware and commits."""
    lines = []
    for name, data in study.data_sets.items():
        counts = f"{data.train or ('6000' if data.kind == 'digits' else 'all')} to train on, "
        counts += f"{data.test or ('2000' if data.kind == 'digits' else 'all')} to test on ({data.test_split})"
        lines.append(f"- Data{'' if name == ONLY else f' `{name}`'}: {data.folder or data.kind}, {counts}.")
    for name, training in study.recipes.items():
        overrides = f" with `{' '.join(training.overrides)}`" if training.overrides else ""
        views = f", {training.views:,} views" if training.views else ""
        lines.append(f"- Recipe{'' if name == ONLY else f' `{name}`'}: `{training.recipe}`{overrides}{views}.")
    for name, entry in study.networks.items():
        if entry.overrides:
            lines.append(f"- {title_of(study, name)} has `{' '.join(entry.overrides)}` besides.")
        if entry.weights_from:
            lines.append(f"- {title_of(study, name)} starts from the weights of `{entry.weights_from}`, same seed.")
        if entry.teacher_from:
            lines.append(f"- {title_of(study, name)} learns from the answers of `{entry.teacher_from}`, same seed.")
    hardware = sorted({text for cell in cells.values() for text in cell.hardware})
    commits = sorted({text for cell in cells.values() for text in cell.commits})
    seeds = sorted({seed for cell in cells.values() for seed in cell.seeds})
    missing = sum(len(study.seeds) - len(cell.seeds) for cell in cells.values())
    missing += len(study.seeds) * (len(study.networks) * len(study.recipes) * len(study.data_sets) - len(cells))
    lines.append(f"- Seeds {', '.join(map(str, seeds))}{f'; {missing} run(s) not done yet' if missing else ''}.")
    lines.append(f"- Hardware: {'; '.join(hardware)}. Commit: {', '.join(commits)}.")
    return lines


def gain_by_size(study: Study, cells: dict[CellKey, Cell]) -> list[str]:
    """Whether small objects gain more than large ones: both differences, and the difference of the gains."""
    if study.small_metric is None or study.large_metric is None:
        return []
    lines = []
    for small, large in zip(
        compare(study, cells, study.small_metric), compare(study, cells, study.large_metric), strict=True
    ):
        if not small.against:
            continue
        texts = [show_difference(one.metric, one.difference) for one in (small, large)]
        more = difference_of_gains(small, large)
        decided = "" if more is None else {1: " **(more)**", -1: " **(less)**", 0: " (not decided)"}[more.decided]
        gain = "" if more is None else show_difference(small.metric, more) + decided
        lines.append([names_of(study, small.network, small.against, small.label), *texts, gain])
    head = [
        "by size",
        metric_title(study.small_metric),
        metric_title(study.large_metric),
        "small gains more than large by",
    ]
    return [markdown_table(head, lines)] if lines else []


def stress_table(study: Study, cells: dict[CellKey, Cell]) -> list[str]:
    """The paper's stress test: the study's metric at other resolutions, and each comparison there."""
    if not study.stress:
        return []
    metrics = [f"{study.metric}_at_{side}" for side in study.stress]
    lines = [
        [title_of(study, key[0]), *(show_spread(metric, cell.spread(metric)) for metric in metrics)]
        for key, cell in cells.items()
    ]
    for pair in study.comparisons:
        found = [
            next(
                (one for one in compare(study, cells, m) if (one.network, one.against) == (pair.network, pair.against)),
                None,
            )
            for m in metrics
        ]
        names = names_of(study, pair.network, pair.against, "")
        lines.append([names, *("" if one is None else show_difference(one.metric, one.difference) for one in found)])
    return [markdown_table(["tested at other resolutions", *map(metric_title, metrics)], lines)]


def explain(study: Study, cells: dict[CellKey, Cell], compared: Sequence[Compared], results: Path) -> list[str]:
    """For each comparison its outcome in words, and beside it how well both fitted their training images."""
    losses = {(one.network, one.against, one.label): one for one in compare(study, cells, END_LOSS)}
    lines = []
    for found in compared:
        if not found.against:
            lines.append(f"- {title_of(study, found.network)}, all pairs together: {found.verdict}.")
            continue
        where = f" ({found.label})" if found.label else ""
        if found.difference.count == 1:
            names = names_of(study, found.network, found.against, found.label)
            difference = show_difference(found.metric, found.difference)
            alone = f"- {names}: {difference} under one seed, which decides nothing."
            lines.append(alone + _timing(study, found, results))
            continue
        text = f"- {title_of(study, found.network)} {VERBS[found.verdict]} {title_of(study, found.against)}{where}."
        loss = losses.get((found.network, found.against, found.label))
        if loss is not None:
            text += " " + _fit(loss)
        lines.append(text + _timing(study, found, results))
    return lines


def _fit(loss: Compared) -> str:
    difference = loss.difference
    interval = show_interval(loss.metric, difference.low, difference.high)
    amount = f"{difference.mean:+.3f} {interval}".rstrip()
    if not difference.decided:
        return f"Their training losses over the last quarter are not told apart ({amount})."
    return f"Its training loss over the last quarter is {'higher' if difference.decided > 0 else 'lower'} ({amount})."


def _timing(study: Study, compared: Compared, results: Path) -> str:
    """How budgets of time were made equal, of each of the two networks for which that was done."""
    text = ""
    for network in (compared.network, compared.against):
        cell = "-".join([network, *(part for part in compared.label.split(", ") if part)])
        path = results / study.name / f"{cell}-timing.json"
        entry = study.networks.get(network)
        if entry is None or entry.equal_time_to is None or not path.is_file():
            continue
        found = read_timing(path)
        text += (
            f" A training step of {title_of(study, network)} takes {found['ratio']:.2f} times that of "
            f"{title_of(study, entry.equal_time_to)}, and its views were divided by that ({found['hardware']})."
        )
    return text
