"""From two trained networks to `Results`: answers, errors by size, speed, scale policy."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from elastic_cnn.analysis.complexity import count
from elastic_cnn.demo.data import DemoData, normalise
from elastic_cnn.demo.results import NetworkResult, Policy, SizeBin
from elastic_cnn.measure.correlations import spearman
from elastic_cnn.measure.proportions import Proportion
from elastic_cnn.measure.turns import in_turns, timer
from elastic_cnn.policy.embedding import MINIMUM, embed
from elastic_cnn.policy.scores import block_info, scale_policy
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.training import Summary
from elastic_cnn.zoo.checkpoint import InputSpec

BATCH = 100
MOST_SHOWN = 1500  # images that t-SNE lays out


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, spec: InputSpec, console: Console) -> np.ndarray:
    """Class numbers (N,) for images (N, 3, H, W) uint8."""
    answers = []
    with console.bar("testing", len(images)) as bar:
        for batch in images.split(BATCH):
            answers.append(network.eval()(_to_input(batch, spec)).argmax(dim=1))
            bar.update(len(batch))
    return torch.cat(answers).numpy()


def score(network: nn.Module, images: Tensor, spec: InputSpec, console: Console) -> np.ndarray:
    """Equation 5 for images (N, 3, H, W) uint8: (N, blocks) float32."""
    scores = []
    with console.bar("scale policy", len(images)) as bar:
        for batch in images.split(BATCH):
            scores.append(scale_policy(network, _to_input(batch, spec)))
            bar.update(len(batch))
    return torch.cat(scores).numpy()


def _to_input(images: Tensor, spec: InputSpec) -> Tensor:
    return normalise(images, spec).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure_speed(networks: list[nn.Module], image_size: int, batch: int = 64, rounds: int = 5) -> list[float]:
    """Images a second of each network in testing: the median over `rounds`, the networks taking turns."""
    images = torch.rand(batch, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)

    def forward_twice(network: nn.Module) -> Callable[[], object]:
        return lambda: (network.eval()(images), network(images))

    times = in_turns([timer(forward_twice(network)) for network in networks], rounds)
    return [2 * batch / float(np.median(seconds)) for seconds in times]


def describe_run(
    network: nn.Module, title: str, folder: Path, summary: Summary, images_per_s: float, data: DemoData,
    predictions: np.ndarray,
) -> NetworkResult:  # fmt: skip
    """What a training run and the tests after it found."""
    cost = count(network, (3, *data.images.shape[-2:]))
    steps = summary.steps / summary.epochs
    losses = [(int(row["step"]) / steps, float(row["loss"])) for row in _rows(folder / "train.csv")]
    errors = [(float(row["epoch"]), float(row["top1_error"])) for row in _rows(folder / "val.csv")]
    return NetworkResult(
        summary.network, title, cost.parameters, cost.macs, images_per_s, summary.seconds, losses, errors, predictions
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():  # a run too short for a row
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def divide_by_size(
    sizes: np.ndarray, base_wrong: np.ndarray, elastic_wrong: np.ndarray, parts: int = 6
) -> list[SizeBin]:
    """Errors in `parts` size ranges that are equally wide in octaves; ranges without an image are left out."""
    low, high = float(np.floor(sizes.min())), float(np.ceil(sizes.max()))
    edges = np.geomspace(low, high, parts + 1)
    place = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, parts - 1)
    bins = []
    for part in range(parts):
        members = np.flatnonzero(place == part)
        if len(members):
            errors = Proportion.of(base_wrong[members]), Proportion.of(elastic_wrong[members])
            bins.append(SizeBin(float(edges[part]), float(edges[part + 1]), members, *errors))
    return bins


def analyse_policy(network: nn.Module, data: DemoData, spec: InputSpec, seed: int, console: Console) -> Policy:
    """The policy of all images, its correlation with their sizes, and its t-SNE map. `ValueError`: too few images."""
    if len(data.images) < MINIMUM:
        raise ValueError(f"the scale policy is shown for at least {MINIMUM} validation images, got {len(data.images)}")
    scores = score(network, data.images, spec, console)
    blocks = block_info(network, _to_input(data.images[:1], spec))
    correlations = None if data.sizes is None else [spearman(data.sizes, column) for column in scores.T]
    shown = np.arange(len(scores))
    if len(shown) > MOST_SHOWN:
        shown = np.sort(np.random.default_rng(seed).choice(shown, MOST_SHOWN, replace=False))
    return Policy(blocks, scores, correlations, shown, embed(scores[shown], seed=seed, standardise=True))
