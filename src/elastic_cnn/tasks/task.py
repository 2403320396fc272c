"""What the engine asks of a task, and what a task hands to the engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning import LightningModule
from torch import Tensor, nn

from elastic_cnn.data.sampler import Samples
from elastic_cnn.zoo.checkpoint import NetworkCard

Batch = dict[str, Any]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate (`lr_factor` times the recipe's) and a weight decay (`decay_factor`)."""

    name: str
    parameters: Iterable[tuple[str, nn.Parameter]]
    lr_factor: float = 1.0
    decay_factor: float = 1.0


def backbone_and_head(network: nn.Module, head: Iterable[nn.Parameter], factor: float) -> list[ParameterGroup]:
    """Two groups: the network's other parameters, and those of its head at `factor` times the recipe's rate."""
    own = {id(parameter) for parameter in head}
    named = list(network.named_parameters())
    return [
        ParameterGroup("backbone", [(name, p) for name, p in named if id(p) not in own]),
        ParameterGroup("head", [(name, p) for name, p in named if id(p) in own], factor),
    ]


class Task(LightningModule, ABC):
    """A network at work on one job: loss, metrics, pictures. `training.py` describes the contract.

    metric: the key of `validation_results()` that decides which weights are best; maximise: whether more is better.
    told: the keys of those results that a `headline` of its own tells, so that `elastic eval` does not tell them again.
    """

    metric: str = ""
    maximise: bool = True
    told: tuple[str, ...] = ()

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """images: (N, 3, H, W) -> what the network returns."""
        return self.network(images)

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, a scalar; averaged over the batch."""

    @abstractmethod
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch. Called without gradients, in eval mode; processes may see different numbers of batches."""

    @abstractmethod
    def validation_results(self) -> dict[str, Any]:
        """All counts of all processes as numbers (fractions, not per cent) or lists of numbers; resets the counts."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters in one group. Frozen ones are left out by the engine."""
        return [ParameterGroup("all", self.network.named_parameters())]

    def save_pictures(self, folder: Path, epoch: int) -> list[Path]:
        """Write pictures of the validation just done into `folder`; returns what was written."""
        return []

    def headline(self, results: dict[str, Any]) -> str:
        """One line for the terminal."""
        return ", ".join(f"{name} {results[name]:.4f}" for name in _numbers(results))

    def told_by_headline(self, results: dict[str, Any]) -> list[str]:
        """The keys of the results that `headline` tells: all numbers, where the task has no headline of its own."""
        return _numbers(results) if type(self).headline is Task.headline else [*self.told]


def _numbers(results: dict[str, Any]) -> list[str]:
    return [name for name, value in results.items() if isinstance(value, int | float)]


@dataclass(frozen=True)
class Job:
    """A task with its data: `train` and `val` are map-style; `card` describes the network in checkpoints.

    taught: the samples have no labels: a teacher's answers are what the validation compares with.
    balance: the class of each training sample, where all classes are to be drawn equally often. files: what else the
    run's folder is to hold from its beginning, {name: writes it} (names are of `RunFolder.FILES`).
    """

    task: Task
    card: NetworkCard
    train: Samples
    val: Samples
    balance: Sequence[int] | None = None
    files: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    taught: bool = False
