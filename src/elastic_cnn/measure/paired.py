"""Means and their spread over seeds, and paired differences with 95% intervals."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elastic_cnn.extras import require

RESAMPLES = 20_000
MOST_EXACT = 6  # pairs up to which all resamples are enumerated: 6^6 = 46,656


@dataclass(frozen=True)
class MeanSpread:
    """Mean and standard deviation (n - 1; None of one value) of `count` values."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "MeanSpread":
        """`ValueError` where there are none."""
        if len(values) == 0:
            raise ValueError("a mean of nothing")
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(float(np.mean(values)), deviation, len(values))


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of pairs, first less second.

    low, high: percentile bootstrap over the pairs; t_low, t_high: Student's t. Both 95%, None of a single pair. A
    bootstrap over a handful of pairs is too narrow, so `decided` asks both. positive, ties: pairs with a difference
    above 0, and of 0.
    """

    mean: float
    low: float | None
    high: float | None
    t_low: float | None
    t_high: float | None
    count: int
    positive: int
    ties: int = 0

    @property
    def decided(self) -> int:
        """1 or -1 where both intervals lie above or below 0, else 0."""
        if self.low is None or self.high is None or self.t_low is None or self.t_high is None:
            return 0
        return int(min(self.low, self.t_low) > 0) - int(max(self.high, self.t_high) < 0)

    @property
    def turned(self) -> "PairedDifference":
        """Second less first."""
        low, high, t_low, t_high = (
            None if end is None else -end for end in (self.high, self.low, self.t_high, self.t_low)
        )
        positive = self.count - self.positive - self.ties
        return PairedDifference(-self.mean, low, high, t_low, t_high, self.count, positive, self.ties)


def paired_difference(first: Sequence[float], second: Sequence[float], seed: int = 0) -> PairedDifference:
    """Compare values that belong together one by one. `ValueError` where their numbers differ or are none."""
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"pairs need as many values on both sides, got {len(first)} and {len(second)}")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    count, mean = len(differences), float(differences.mean())
    positive, ties = int((differences > 0).sum()), int((differences == 0).sum())
    if count == 1:
        return PairedDifference(mean, None, None, None, None, 1, positive, ties)
    low, high = np.quantile(bootstrap_means(differences, seed), (0.025, 0.975), method="inverted_cdf")
    error = float(differences.std(ddof=1)) / count**0.5
    half = float(require("scipy.stats", "figures").t.ppf(0.975, count - 1)) * error
    return PairedDifference(mean, float(low), float(high), mean - half, mean + half, count, positive, ties)


def bootstrap_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means of resamples of `values` (n,): all n^n of them for small n, else `RESAMPLES` at random."""
    count = len(values)
    if count <= MOST_EXACT:
        places = np.array(list(itertools.product(range(count), repeat=count)))
    else:
        places = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    return values[places].mean(axis=1)
