"""The cost formulas of the paper's Table 1; counts of whole networks come from `nn/complexity.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

from elastic_cnn.nn.complexity import Complexity, count

__all__ = ["Complexity", "LayerCost", "count", "table_1"]


@dataclass(frozen=True)
class LayerCost:
    """One row of Table 1, for one k x k convolution, c channels in and out, on an n x n map."""

    name: str
    macs: float
    parameters: float


def table_1(n: int, c: int, k: int, q: int, r: Sequence[int], b: int | None = None) -> list[LayerCost]:
    """Table 1: the cost of one layer in each multi-scale design.

    n: height and width of the map. c: channels. k: kernel size. q: branches, r: their scales, one each. b: levels of
    the feature pyramids, `q` by default. `ValueError` where they are not positive or do not fit.
    """
    b = q if b is None else b
    if min(n, c, k, q, b, *r) < 1:
        raise ValueError(
            f"n, c, k, q, b and the scales r must be positive, got n={n} c={c} k={k} q={q} b={b} r={list(r)}"
        )
    if len(r) != q:
        raise ValueError(f"q={q} branches need {q} scales, got r={list(r)}")
    macs, parameters = float(n**2 * c**2 * k**2), float(c**2 * k**2)
    wider = sum(scale**2 for scale in r) / q  # kernels of r_i k
    narrower = sum(1 / scale**2 for scale in r) / q  # maps of n / r_i
    return [
        LayerCost("single scale", macs, parameters),
        LayerCost("feature pyramid (concatenation)", b * macs, b * parameters),
        LayerCost("feature pyramid (addition)", macs, parameters),
        LayerCost("filter pyramid (standard)", wider * macs, wider * parameters),
        LayerCost("filter pyramid (dilated)", macs, parameters),
        LayerCost("Elastic", narrower * macs, parameters),
    ]
