"""Shares: how much of which block runs at low resolution, so that a budget is met and least is lost.

What a block's conversion alone would do to the network's answers is measured (`influence.py`), less what later blocks
mend; how it grows with the part that runs low follows the channels' errors (`order.py`). From all at full resolution
on, the next step is always the one that adds least for the cost it saves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from elastic_cnn.conversion.order import Errors
from elastic_cnn.nn import ElasticSpec

STEPS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)  # parts at full resolution that are tried
MENDING = 3.0  # chosen on ResNet-50 at three quarters of its multiply-adds: 0 and 2 lose more there, 4 as much
Costs = Mapping[str, Mapping[float, float]]  # {block: {part at full resolution: cost saved}}


@dataclass(frozen=True)
class Choice:
    """One block's part at full resolution (1: it is left), what that saves of the network's cost, and what it is
    expected to do to the answers."""

    high: float
    saved: float
    error: float


def after_mending(influence: Mapping[str, float]) -> dict[str, float]:
    """What is left of each block's influence, in the order of running, where later blocks are refitted and so mend a
    part of it: exp(-MENDING * the part of the blocks that come later)."""
    count = len(influence)
    return {
        name: value * math.exp(-MENDING * (count - 1 - number) / count)
        for number, (name, value) in enumerate(influence.items())
    }


def tail(errors: Sequence[Tensor], high: float) -> float:
    """The summed error of the channels that run low where the part `high` of each section's does not."""
    return sum(float(each[round(high * len(each)) :].sum()) for each in errors)


def choose_shares(
    influence: Mapping[str, float],
    errors: Errors,
    saved: Costs,
    budget: float,
    half: float = 0.5,
) -> dict[str, Choice]:
    """The blocks to convert, each with its part at full resolution, that save at least 1 - `budget` of the cost.

    influence: of each block with the part `half` at full resolution. saved: of the network's cost, as parts of it.
    `ValueError` where not even the lowest shares of all blocks save enough.
    """
    ladders = {name: _ladder(influence[name], errors[name], saved[name], half) for name in influence}
    at = dict.fromkeys(ladders, 0)
    total = 0.0
    while total < 1 - budget - 1e-9:
        steps = [
            ((ladder[i + 1].error - ladder[i].error) / (ladder[i + 1].saved - ladder[i].saved), name)
            for name, ladder in ladders.items()
            for i in [at[name]]
            if i + 1 < len(ladder)
        ]
        if not steps:
            raise ValueError(
                f"a budget of {budget:g} cannot be met: with {min(STEPS):.1%} of every block at full resolution the "
                f"network still costs {1 - total:.3f} of the base"
            )
        _, name = min(steps)
        at[name] += 1
        total = sum(ladder[at[n]].saved for n, ladder in ladders.items())
    return {name: ladder[at[name]] for name, ladder in ladders.items() if at[name]}


def _ladder(influence: float, errors: Sequence[Tensor], saved: Mapping[float, float], half: float) -> list[Choice]:
    """Choices of growing saving on the convex hull, so that each step's price is below the next one's."""
    unit = tail(errors, half)
    points = [Choice(1.0, 0.0, 0.0)]
    for high in sorted(saved, reverse=True):
        grown = tail(errors, high) / unit if unit else 1.0
        points.append(Choice(high, saved[high], influence * grown))
    hull: list[Choice] = []
    for point in points:
        if hull and point.saved <= hull[-1].saved:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _price(a: Choice, b: Choice) -> float:
    return (b.error - a.error) / (b.saved - a.saved)


def specs_of(choices: Mapping[str, Choice], spec: ElasticSpec) -> dict[str, ElasticSpec]:
    """{block: how to divide it}: what does not run at full resolution is dealt out as `spec` says."""
    low = sum(spec.shares[1:])
    return {
        name: ElasticSpec(
            spec.scales,
            (choice.high, *((1 - choice.high) * share / low for share in spec.shares[1:])),
            spec.downsample,
            spec.upsample,
        )
        for name, choice in choices.items()
    }
