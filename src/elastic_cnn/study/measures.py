"""What is measured on the trained network of a run beyond the task's own results, by the kind of its data."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.measure.correlations import rank_correlations, size_readability
from elastic_cnn.policy.scores import is_elastic, scale_policy
from elastic_cnn.study.job import StoreShelf, make_task
from elastic_cnn.study.stores import Store
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.zoo.checkpoint import InputSpec

BATCH = 125
SIZE_EDGES = (8.0, 14.5, 26.0, 48.0)  # of digits, a third of the octaves each
SMALL_THINGS = ("pole", "sign", "pedestrian", "bicyclist")  # of CamVid: few pixels each
POLICY_IMAGES = 1000

Inputs = Callable[[int, int], Tensor]  # from, to -> images (n, 3, H, W), normalised


def measure(
    network: nn.Module, untrained: Callable[[], nn.Module], recipe: Recipe, spec: InputSpec, train: Store, test: Store,
    results: dict[str, Any], stress: dict[int, Store],
) -> dict[str, float]:  # fmt: skip
    """All numbers of a run: the task's scalars and what follows from the network's answers.

    network: trained, on its device. untrained: makes the same network with the weights it began with.
    results: of the last validation. stress: test stores at other resolutions, by side in pixels.
    """
    found = {name: float(value) for name, value in results.items() if isinstance(value, int | float)}
    if test.sizes is not None:
        found |= _of_digits(network, spec, test)
        if is_elastic(network):
            found |= _policy(network, spec, test, "policy")
            found |= _policy(untrained().to(next(network.parameters()).device), spec, test, "untrained_policy")
    if test.labels is not None:
        found |= _by_class(results, test.classes)
    for side, store in stress.items():
        found |= {f"{name}_at_{side}": value for name, value in _test(network, recipe, spec, train, store).items()}
    return found


def stress_stores(shelf: StoreShelf, data: Any, recipe: Recipe, sides: tuple[int, ...]) -> dict[int, Store]:
    """The test images at other resolutions than `recipe`'s."""
    return {side: shelf.get(replace(data, train=1), replace(recipe, image_size=side))[1] for side in sides}


def images_of(store: Store, spec: InputSpec, device: torch.device) -> Inputs:
    """The store's pictures as a network takes them."""

    def get(start: int, stop: int) -> Tensor:
        images = normalise(store.images[start:stop].to(device), spec.mean, spec.std)
        return images.contiguous(memory_format=torch.channels_last)

    return get


@torch.no_grad()
def _answers(network: nn.Module, spec: InputSpec, store: Store) -> np.ndarray:
    """Class numbers (N,)."""
    get = images_of(store, spec, next(network.parameters()).device)
    parts = [network.eval()(get(start, start + BATCH)).argmax(1).cpu() for start in range(0, len(store), BATCH)]
    return torch.cat(parts).numpy()


def _of_digits(network: nn.Module, spec: InputSpec, store: Store) -> dict[str, float]:
    """Errors on small, medium and large digits, of those that occur, and with and without the clutter around them."""
    assert store.sizes is not None
    truth = store.targets["target"].numpy()
    wrong = _answers(network, spec, store) != truth
    place = np.digitize(store.sizes, SIZE_EDGES[1:-1])
    groups = {f"error_{name}": wrong[place == number] for number, name in enumerate(("small", "medium", "large"))}
    if store.plain is not None:
        plain = _answers(network, spec, replace(store, images=store.plain)) != truth
        groups |= {"top1_error_cluttered": wrong, "top1_error_plain": plain}
    return {name: float(members.mean()) for name, members in groups.items() if len(members)}


def _policy(network: nn.Module, spec: InputSpec, store: Store, prefix: str) -> dict[str, float]:
    """How the scores of Equation 5 go with the digits' true size: Spearman's correlation of each block (mean and
    greatest of the absolute values), and how much of the ranks of size all scores tell together, on images held out."""
    assert store.sizes is not None
    get = images_of(store, spec, next(network.parameters()).device)
    count = min(POLICY_IMAGES, len(store))
    parts = [scale_policy(network, get(start, min(start + BATCH, count))).cpu() for start in range(0, count, BATCH)]
    scores = torch.cat(parts).numpy()
    rho = np.abs(rank_correlations(store.sizes[:count], scores))
    return {
        f"{prefix}_mean_rho": float(rho.mean()),
        f"{prefix}_most_rho": float(rho.max()),
        f"{prefix}_size_r2": size_readability(store.sizes[:count], scores),
    }


def _by_class(results: dict[str, Any], classes: tuple[str, ...]) -> dict[str, float]:
    """Mean IoU of thin or small things and of the other classes, among the classes that occur."""
    found = {name: results.get(f"iou_{name}") for name in classes}
    small = [value for name, value in found.items() if name in SMALL_THINGS and value is not None]
    large = [value for name, value in found.items() if name not in SMALL_THINGS and value is not None]
    groups = {"miou_small": small, "miou_large": large}
    return {name: float(np.mean(values)) for name, values in groups.items() if values}


@torch.no_grad()
def _test(network: nn.Module, recipe: Recipe, spec: InputSpec, train: Store, store: Store) -> dict[str, float]:
    """The task's main results on another store."""
    task: Any = make_task(network, recipe, train, store, spec.mean, spec.std)
    device = next(network.parameters()).device
    task.to(device).eval()
    size = recipe.val_batch_size or recipe.batch_size
    for number, start in enumerate(range(0, len(store), size)):
        rows = torch.arange(start, min(start + size, len(store)))
        targets = {name: values[rows].to(device) for name, values in store.targets.items()}
        views = torch.eye(2, 3, device=device).expand(len(rows), 1, 2, 3)
        task.validation_step({"image": views, "picture": rows.to(device), "index": rows, **targets}, number)
    results = task.validation_results()
    kept = ("top1_error", "map", "f1_per_class", "f1_overall", "miou")
    return {name: float(results[name]) for name in kept if results.get(name) is not None}
