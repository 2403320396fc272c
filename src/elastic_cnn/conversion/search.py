"""Searches over budgets: the network that meets a measured time, or that keeps enough of the answers."""

from typing import Any

from torch import Tensor

from elastic_cnn.conversion.answers import same_answers
from elastic_cnn.conversion.shares import Costs
from elastic_cnn.conversion.times import alike, time_ratios
from elastic_cnn.conversion.work import Work, macs_of_modules
from elastic_cnn.nn import ElasticSpec

ATTEMPTS = 4  # at a measured time
HALVINGS = 4  # of the range of budgets, for a tolerance
LOWEST = 0.3  # budget that is tried


def within_time(work: Work, wanted: float, form: str) -> Any:
    """A network that takes at most `wanted` of the base's time in the form; with `time_ratio`, what was measured.

    `ValueError` where that cannot be met: the message says what was reached.
    """
    image = work.images[0][:1]
    saved = measured_savings(work, form)
    aim, best, obstacle = wanted, 1.0, ""
    for attempt in range(ATTEMPTS):
        work.tell("time", attempt, ATTEMPTS)
        try:
            specs = work.choose(aim, saved)
        except ValueError as error:
            obstacle = f" ({error})"
            break
        ratio = time_ratios([work.divided(specs)], work.trained, image, form)[0]
        best = min(best, ratio.median)
        if ratio.median <= wanted:
            elastic = work.build(specs)
            elastic.time_ratio = ratio
            return elastic
        aim -= ratio.median - wanted
    tried = f"the fastest that was tried takes {best:.3f}" if best < 1 else "none that was tried is faster"
    raise ValueError(f"{wanted:g} of the base's time in the form {form!r} cannot be reached: {tried}{obstacle}")


def measured_savings(work: Work, form: str) -> dict[ElasticSpec, Costs]:
    """{spec: {block: {part at full resolution: seconds saved, of the base's}}}: measured on networks in which blocks
    that are alike are elastic, all of them, and no others."""
    groups = [(spec, group) for spec in work.specs for group in _alike(work, spec)]
    work.tell("time of blocks", 0, len(groups))
    networks = [work.divided(dict.fromkeys(group, spec)) for spec, group in groups]
    ratios = time_ratios(networks, work.trained, work.images[0][:1], form)
    work.tell("time of blocks", len(groups), len(groups))
    each: dict[ElasticSpec, dict[str, float]] = {spec: {} for spec in work.specs}
    for (spec, group), ratio in zip(groups, ratios, strict=True):
        each[spec] |= dict.fromkeys(group, (1 - ratio.median) / len(group))
    return {spec: work.grown(spec, saved, dict.fromkeys(saved, 0.0), 1.0) for spec, saved in each.items()}


def _alike(work: Work, spec: ElasticSpec) -> list[list[str]]:
    division = work.division(spec)
    kinds = {block.name: block.kind for block in division.elastic_report.blocks if block.converted}
    return alike(work.macs_before, macs_of_modules(division, work.images[0]), kinds)


def within_tolerance(work: Work, wanted: float, held_out: list[Tensor], task: str) -> Any:
    """The network of the fewest multiply-adds among those tried that changes at most `wanted` of the answers on
    `held_out`; with `changed`, what was measured. `ValueError` where none does."""
    low, high = _lowest_budget(work), 1.0
    best: Any = None
    least = 1.0
    for step in range(HALVINGS):
        work.tell("tolerance", step, HALVINGS)
        budget = (low + high) / 2
        elastic = work.build(work.choose(budget))
        changed = 1 - same_answers(elastic, work.trained, held_out, task)
        least = min(least, changed)
        if changed <= wanted:
            elastic.changed, best, high = changed, elastic, budget
        else:
            low = budget
    if best is None:
        raise ValueError(
            f"no network tried changes at most {wanted:.1%} of the answers; the nearest one changes {least:.1%}"
        )
    return best


def _lowest_budget(work: Work) -> float:
    """What is left of the multiply-adds where every block saves as much as it can."""
    most: dict[str, float] = {}
    for spec in work.specs:
        for name, steps in work.saved_macs(spec).items():
            most[name] = max(most.get(name, 0.0), *steps.values())
    return max(LOWEST, 1 - sum(most.values()))
