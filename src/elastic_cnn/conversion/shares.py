"""Shares: how much of which block runs at low resolution, so that a budget is met and least is lost.

What a block's conversion alone would do to the network's answers is measured (`influence.py`), less what later blocks
mend; how it grows with the part that runs low follows the channels' errors (`order.py`). From all at full resolution
on, the next step is always the one that adds least for the cost it saves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from elastic_cnn.conversion.order import Errors
from elastic_cnn.nn import ElasticSpec

STEPS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)  # parts at full resolution that are tried
MENDING = 3.0  # chosen on ResNet-50 at three quarters of its multiply-adds: 0 and 2 lose more there, 4 as much
Costs = Mapping[str, Mapping[float, float]]  # {block: {part at full resolution: cost saved}}


@dataclass(frozen=True)
class Choice:
    """How one block is divided (None: it is left), what that saves of the network's cost, and what it is expected to do
    to the answers."""

    spec: ElasticSpec | None
    saved: float
    error: float


@dataclass(frozen=True)
class Alternative:
    """One way to divide blocks. influence: {block: what its conversion by `spec`, alone, does to the answers}; saved:
    what it saves at all steps, in proportions in which `spec` deals out what does not run at full resolution."""

    spec: ElasticSpec
    influence: Mapping[str, float]
    saved: Costs

    def choices(self, block: str, errors: Sequence[Tensor]) -> list[Choice]:
        """One of each step; errors of the block's channels, in their order."""
        if block not in self.influence:
            return []
        unit = tail(errors, self.spec.shares[0])
        return [
            Choice(
                with_part(self.spec, high), saved, self.influence[block] * (tail(errors, high) / unit if unit else 1.0)
            )
            for high, saved in self.saved[block].items()
        ]


def after_mending(influence: Mapping[str, float]) -> dict[str, float]:
    """What is left of each block's influence, in the order of running, where later blocks are refitted and so mend a
    part of it: exp(-MENDING * the part of the blocks that come later)."""
    count = len(influence)
    return {
        name: value * math.exp(-MENDING * (count - 1 - number) / count)
        for number, (name, value) in enumerate(influence.items())
    }


def tail(errors: Sequence[Tensor], high: float) -> float:
    """The summed error of the channels that run low where the part `high` of each section's does not: of one unit at
    least, and of all but one at most, as a division leaves no branch empty."""
    return sum(float(each[min(max(round(high * len(each)), 1), len(each) - 1) :].sum()) for each in errors)


def choose_shares(alternatives: Sequence[Alternative], errors: Errors, budget: float) -> dict[str, Choice]:
    """The blocks to convert, each in the way and with the part at full resolution that lose least, so that at least
    1 - `budget` of the cost is saved.

    `ValueError` where not even what saves most of all blocks saves enough.
    """
    ladders = {
        name: _ladder([choice for each in alternatives for choice in each.choices(name, errors[name])])
        for name in errors
    }
    at = dict.fromkeys(ladders, 0)
    total = 0.0
    while total < 1 - budget - 1e-9:
        steps = [
            (_price(ladder[i], ladder[i + 1]), name)
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


def _ladder(choices: Sequence[Choice]) -> list[Choice]:
    """Choices of growing saving on the convex hull, so that each step's price is below the next one's."""
    hull = [Choice(None, 0.0, 0.0)]
    for point in sorted(choices, key=lambda choice: (choice.saved, choice.error)):
        if point.saved <= hull[-1].saved:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _price(a: Choice, b: Choice) -> float:
    return (b.error - a.error) / (b.saved - a.saved)


def with_part(spec: ElasticSpec, high: float) -> ElasticSpec:
    """`spec` with the part `high` at full resolution; the rest is dealt out as it says."""
    low = sum(spec.shares[1:])
    return replace(spec, shares=(high, *((1 - high) * share / low for share in spec.shares[1:])))
