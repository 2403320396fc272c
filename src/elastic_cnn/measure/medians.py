"""Medians of times measured in rounds, and how sure they are."""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True)
class MedianInterval:
    """A median with its 95% interval, by the bootstrap over rounds."""

    median: float
    low: float
    high: float

    def rounded(self, digits: int) -> "MedianInterval":
        """With all three rounded."""
        return MedianInterval(*(round(value, digits) for value in (self.median, self.low, self.high)))


def median_of(values: Sequence[float]) -> MedianInterval:
    """The median of values measured in rounds."""
    generator = random.Random(0)
    drawn = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return MedianInterval(statistics.median(values), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)])


def ratio_of(values: Sequence[float], base: Sequence[float]) -> MedianInterval:
    """The median of the rounds' ratios, value over base: what slows a whole round falls out of it."""
    return median_of([value / other for value, other in zip(values, base, strict=True)])
