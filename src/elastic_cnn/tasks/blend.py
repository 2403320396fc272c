"""Gradual conversion: move the low-resolution branches from full resolution to their own while fine-tuning.

A network fresh from `elasticize` computes something else than the trained network it came from. At blend 0 it still
computes the very same; the schedule moves it to blend 1, the elastic network, in small steps that training can follow.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Blend:
    """The blend over a run: 0 until the part `start` (0..1) of it is done, 1 from `end` on, linear between.

    `ValueError` where start and end do not lie in order within 0..1.
    """

    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(f"blend.start={self.start} and blend.end={self.end} must lie in order within 0..1")

    def at(self, done: float) -> float:
        """The blend when the part `done` (0..1) of the run is behind."""
        if done >= self.end:
            return 1.0
        return (done - self.start) / (self.end - self.start) if done > self.start else 0.0
