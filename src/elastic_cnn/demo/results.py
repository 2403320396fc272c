"""What the demo finds out, as plain values: the report and results.json are made of these and nothing else."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elastic_cnn.measure.correlations import standardised
from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.measure.paired import MeanSpread, PairedDifference, paired_difference
from elastic_cnn.policy.scores import BlockInfo


@dataclass(frozen=True)
class Trained:
    """One run. losses: (epochs done, mean training loss) pairs; errors: (epoch, error on the watched images) pairs.

    predictions: (N,) class numbers on the compared images; error: the part of them that is wrong.
    """

    seed: int
    losses: list[tuple[float, float]]
    errors: list[tuple[float, float]]
    predictions: np.ndarray
    error: float
    train_seconds: float


@dataclass(frozen=True)
class NetworkResult:
    """One network under all seeds. macs: multiply-adds an image."""

    network: str
    title: str
    parameters: int
    macs: int
    runs: list[Trained]

    @property
    def errors(self) -> list[float]:
        """Of each seed, on all compared images."""
        return [run.error for run in self.runs]

    @property
    def spread(self) -> MeanSpread:
        return MeanSpread.of(self.errors)


@dataclass(frozen=True)
class SizeBin:
    """Images with objects of `low` to `high` pixels: their numbers, and both networks' errors by seed."""

    low: float
    high: float
    members: np.ndarray
    base: list[float]
    elastic: list[float]

    @property
    def label(self) -> str:
        return f"{self.low:.0f}\N{EN DASH}{self.high:.0f}"

    @property
    def difference(self) -> PairedDifference:
        """Elastic less base, by seed."""
        return paired_difference(self.elastic, self.base)


@dataclass(frozen=True)
class Speed:
    """Of networks in the form that is deployed. form: which one; images_per_s by name; time: over the base's."""

    form: str
    batch: int
    images_per_s: dict[str, float]
    time: dict[str, MedianInterval]


@dataclass(frozen=True)
class Converted:
    """The trained base made elastic without training. same: part of its answers that stayed on the compared images;
    base_error, error: before and after; photos: that it was calibrated on; seconds: what it took."""

    seed: int
    same: float
    base_error: float
    error: float
    photos: int
    seconds: float
    macs_ratio: float
    blocks: int


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
        return standardised(self.scores.astype(np.float64))

    @property
    def strongest(self) -> int:
        """The block whose score follows the object's size most closely; the first without sizes."""
        return 0 if self.correlations is None else int(np.argmax([abs(rho) for rho, _, _ in self.correlations]))


@dataclass(frozen=True)
class Results:
    """Everything. images (N, 3, S, S) uint8 and labels (N,): what all networks were compared on.

    The policy, the examples and the conversion are those of the first seed. explorer: the page of all compared images
    beside the report, None where there is none.
    """

    kind: str
    name: str
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray | None
    base: NetworkResult
    elastic: NetworkResult
    bins: list[SizeBin]
    speed: Speed
    converted: Converted
    policy: Policy
    train_images: int
    epochs: int
    image_size: int
    precision: str
    seed: int
    command: str
    seconds: float
    machine: dict[str, str]
    notes: list[str]
    explorer: str | None = None

    @property
    def difference(self) -> PairedDifference:
        """Error of Elastic less that of the base, by seed."""
        return paired_difference(self.elastic.errors, self.base.errors)

    def to_json(self) -> dict[str, Any]:
        """Numbers without images. Those under `timing` and `machine` differ from run to run, the others do not."""
        names = [block.name for block in self.policy.blocks]
        correlations = self.policy.correlations
        converted = {name: value for name, value in asdict(self.converted).items() if name != "seconds"}
        return {
            "data": {"kind": self.kind, "name": self.name, "classes": list(self.classes), "notes": self.notes},
            "command": self.command,
            "seeds": [run.seed for run in self.base.runs],
            "epochs": self.epochs,
            "image_size": self.image_size,
            "precision": self.precision,
            "train_images": self.train_images,
            "test_images": len(self.labels),
            "base": _network_json(self.base),
            "elastic": _network_json(self.elastic),
            "difference": asdict(self.difference),
            "error_by_size": [_bin_json(part) for part in self.bins],
            "converted": converted,
            "blocks": names,
            "spearman_size_score": None
            if correlations is None
            else {name: rho for name, (rho, _, _) in zip(names, correlations, strict=True)},
            "timing": {
                "seconds": self.seconds,
                "conversion_seconds": self.converted.seconds,
                "speed": asdict(self.speed),
                "train_seconds": {
                    name: [run.train_seconds for run in network.runs]
                    for name, network in (("base", self.base), ("elastic", self.elastic))
                },
            },
            "machine": self.machine,
        }


def _network_json(result: NetworkResult) -> dict[str, Any]:
    return {
        "network": result.network,
        "parameters": result.parameters,
        "macs": result.macs,
        "errors": result.errors,
        "losses": [run.losses for run in result.runs],
        "val_errors": [run.errors for run in result.runs],
    }


def _bin_json(part: SizeBin) -> dict[str, Any]:
    values: dict[str, Any] = {"low": part.low, "high": part.high, "images": len(part.members)}
    return {**values, "base": part.base, "elastic": part.elastic, "difference": asdict(part.difference)}


def divide_by_size(
    sizes: np.ndarray, base_wrong: Sequence[np.ndarray], elastic_wrong: Sequence[np.ndarray], parts: int = 4
) -> list[SizeBin]:
    """Errors in `parts` size ranges that are equally wide in octaves; ranges without an image are left out.

    sizes (N,); base_wrong, elastic_wrong: booleans (N,), one array a seed.
    """
    low, high = float(np.floor(sizes.min())), float(np.ceil(sizes.max()))
    edges = np.geomspace(low, high, parts + 1)
    place = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, parts - 1)
    bins = []
    for part in range(parts):
        members = np.flatnonzero(place == part)
        if len(members):
            errors = [[float(wrong[members].mean()) for wrong in runs] for runs in (base_wrong, elastic_wrong)]
            bins.append(SizeBin(float(edges[part]), float(edges[part + 1]), members, *errors))
    return bins
