"""What the demo finds out, as plain values: the report and results.json are made of these and nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_cnn.measure.proportions import Difference, Proportion
from elastic_cnn.policy.scores import BlockInfo


@dataclass(frozen=True)
class NetworkResult:
    """One trained network. macs: multiply-adds an image; predictions (N,) class numbers on the compared images.

    losses: (epochs done, mean training loss) pairs; errors: (epoch, error on the validation images) pairs.
    """

    network: str
    title: str
    parameters: int
    macs: int
    images_per_s: float
    train_seconds: float
    losses: list[tuple[float, float]]
    errors: list[tuple[float, float]]
    predictions: np.ndarray


@dataclass(frozen=True)
class SizeBin:
    """Images with objects of `low` to `high` pixels: their numbers, and both networks' errors."""

    low: float
    high: float
    members: np.ndarray
    base: Proportion
    elastic: Proportion

    @property
    def label(self) -> str:
        return f"{self.low:.0f}\N{EN DASH}{self.high:.0f}"


@dataclass(frozen=True)
class Policy:
    """The Elastic network's scores (N, blocks). correlations: Spearman's with the object's size, a block, with its 95%
    interval, None where sizes are not known. shown: the images laid out by t-SNE at `map` (M, 2)."""

    blocks: list[BlockInfo]
    scores: np.ndarray
    correlations: list[tuple[float, float, float]] | None
    shown: np.ndarray
    map: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Scores in standard deviations from their mean at each block, (N, blocks)."""
        scores = self.scores.astype(np.float64)
        deviation = scores.std(axis=0)
        return (scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1)

    @property
    def strongest(self) -> int:
        """The block whose score follows the object's size most closely; the first without sizes."""
        return 0 if self.correlations is None else int(np.argmax([abs(rho) for rho, _, _ in self.correlations]))


@dataclass(frozen=True)
class Results:
    """Everything. images (N, 3, S, S) uint8 and labels (N,): what both networks were compared on."""

    kind: str
    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray | None
    base: NetworkResult
    elastic: NetworkResult
    base_error: Proportion
    elastic_error: Proportion
    difference: Difference
    bins: list[SizeBin]
    policy: Policy
    train_images: int
    epochs: int
    image_size: int
    seed: int
    command: str
    seconds: float
    machine: dict[str, str]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Numbers without images. Those under `timing` and `machine` differ from run to run, the others do not."""

        def network(result: NetworkResult, error: Proportion) -> dict[str, Any]:
            return {
                "network": result.network,
                "parameters": result.parameters,
                "macs": result.macs,
                "error": error.to_json(),
                "losses": result.losses,
                "val_errors": result.errors,
            }

        bins = [
            {"low": part.low, "high": part.high, "base": part.base.to_json(), "elastic": part.elastic.to_json()}
            for part in self.bins
        ]
        names = [block.name for block in self.policy.blocks]
        correlations = self.policy.correlations
        return {
            "data": {"kind": self.kind, "name": self.name, "classes": list(self.classes), "notes": self.notes},
            "command": self.command,
            "seed": self.seed,
            "epochs": self.epochs,
            "image_size": self.image_size,
            "train_images": self.train_images,
            "test_images": len(self.labels),
            "base": network(self.base, self.base_error),
            "elastic": network(self.elastic, self.elastic_error),
            "difference": self.difference.to_json(),
            "error_by_size": bins,
            "blocks": names,
            "spearman_size_score": None
            if correlations is None
            else {name: rho for name, (rho, _, _) in zip(names, correlations, strict=True)},
            "timing": {
                "seconds": self.seconds,
                "images_per_s": {"base": self.base.images_per_s, "elastic": self.elastic.images_per_s},
                "train_seconds": {"base": self.base.train_seconds, "elastic": self.elastic.train_seconds},
            },
            "machine": self.machine,
        }
