"""Shares: how much of which block runs at low resolution, so that a budget is met and least is lost.

The error that a block's conversion makes, relative to its output, is measured with all others at full resolution
(`set_blend`); how it grows with the part that runs low follows the channels' errors (`order.py`). From all at full
resolution on, the next step is always the one that adds least error for the cost it saves. (What a block alone does to
the network's answers was tried in its place and chose worse: the refit of later blocks mends early ones.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.conversion.order import Errors
from elastic_cnn.conversion.probe import Call
from elastic_cnn.nn import ElasticSpec, set_blend
from elastic_cnn.nn.compare import output_tensors

STEPS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)  # parts at full resolution that are tried
Costs = Mapping[str, Mapping[float, float]]  # {block: {part at full resolution: cost saved}}


@dataclass(frozen=True)
class Choice:
    """One block's part at full resolution (1: it is left), what that saves of the network's cost, and the error
    that it is expected to make, relative to its output."""

    high: float
    saved: float
    error: float


@torch.no_grad()
def sensitivities(elastic: nn.Module, names: Sequence[str], images: Sequence[Tensor]) -> dict[str, float]:
    """{block: error of its output over the output's variance, where it runs at its resolutions on what the trained
    network gives it}; leaves the blend at 1."""
    set_blend(elastic, 0)
    errors = dict.fromkeys(names, 0.0)
    calls: dict[str, Call] = {}

    def entering(name: str) -> Any:
        return lambda _, args, kwargs: calls.__setitem__(name, Call(args, kwargs).copy())

    def leaving(name: str, weight: int) -> Any:
        def measure(block: nn.Module, _: Any, output: Any) -> None:
            call = calls.pop(name)
            set_blend(block, 1)
            pairs = zip(output_tensors(block.forward(*call.args, **call.kwargs)), output_tensors(output), strict=True)
            set_blend(block, 0)
            errors[name] += weight * sum(float((a - b).square().mean() / b.var().clamp_min(1e-30)) for a, b in pairs)

        return measure

    for batch in images:
        handles = []
        for name in names:
            block = elastic.get_submodule(name)
            handles.append(block.register_forward_pre_hook(entering(name), with_kwargs=True))
            handles.append(block.register_forward_hook(leaving(name, len(batch))))
        try:
            elastic(batch)
        finally:
            for handle in handles:
                handle.remove()
    set_blend(elastic, 1)
    count = sum(len(batch) for batch in images)
    return {name: error / count for name, error in errors.items()}


def tail(errors: Sequence[Tensor], high: float) -> float:
    """The summed error of the channels that run low where the part `high` of each section's does not."""
    return sum(float(each[round(high * len(each)) :].sum()) for each in errors)


def choose_shares(
    sensitivity: Mapping[str, float],
    errors: Errors,
    saved: Costs,
    budget: float,
    half: float = 0.5,
) -> dict[str, Choice]:
    """The blocks to convert, each with its part at full resolution, that save at least 1 - `budget` of the cost.

    sensitivity: of each block with the part `half` at full resolution. saved: of the network's cost, as parts of it.
    `ValueError` where not even the lowest shares of all blocks save enough.
    """
    ladders = {name: _ladder(sensitivity[name], errors[name], saved[name], half) for name in sensitivity}
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


def _ladder(sensitivity: float, errors: Sequence[Tensor], saved: Mapping[float, float], half: float) -> list[Choice]:
    """Choices of growing saving on the convex hull, so that each step's price is below the next one's."""
    unit = tail(errors, half)
    points = [Choice(1.0, 0.0, 0.0)]
    for high in sorted(saved, reverse=True):
        grown = tail(errors, high) / unit if unit else 1.0
        points.append(Choice(high, saved[high], sensitivity * grown))
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
