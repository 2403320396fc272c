"""How many of the same images networks get right: proportions with intervals, and paired differences."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elastic_cnn.extras import require

Z95 = 1.959964


@dataclass(frozen=True)
class Proportion:
    """`count` of `total`, as a fraction with Wilson's 95% binomial interval."""

    count: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: np.ndarray) -> "Proportion":
        """From booleans (N,). `ValueError` where there are none."""
        count, total = int(hits.sum()), len(hits)
        if total == 0:
            raise ValueError("a proportion of nothing")
        interval = require("scipy.stats", "figures").binomtest(count, total).proportion_ci(method="wilson")
        return cls(count, total, count / total, float(interval.low), float(interval.high))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """Two networks on the same images: how many only one of them gets right.

    value: error of the base less error of Elastic (positive where Elastic is better), with its 95% interval;
    p_value: McNemar's exact test that either is as likely to be right alone.
    """

    only_elastic: int
    only_base: int
    value: float
    low: float
    high: float
    p_value: float

    @classmethod
    def of(cls, base_right: np.ndarray, elastic_right: np.ndarray) -> "Difference":
        """From booleans (N,), (N,)."""
        total = len(base_right)
        gained = int((elastic_right & ~base_right).sum())
        lost = int((base_right & ~elastic_right).sum())
        value = (gained - lost) / total
        half = Z95 * math.sqrt(max(0.0, gained + lost - (gained - lost) ** 2 / total)) / total
        apart = gained + lost
        test = require("scipy.stats", "figures").binomtest(gained, apart).pvalue if apart else 1.0
        return cls(gained, lost, value, value - half, value + half, float(test))

    @property
    def clear(self) -> bool:
        """Whether chance on these images would rarely (p < 0.05) make such a difference."""
        return self.p_value < 0.05

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
