"""The elastic network that a run begins with: divided as it is, or converted on the run's own photos.

A conversion comes before the first step and is kept in the run's folder (start.safetensors), so that a resumed run has
the very same network, and it can be tested beside what became of it.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.data.sampler import Samples, UnreadableSample
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.surgery import elasticize
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.spec import loaded, task_spec
from elastic_cnn.tasks.strict import Refused, concerning
from elastic_cnn.zoo.checkpoint import NetworkCard, save_checkpoint

START = "start.safetensors"
CONVERTER, CALIBRATION = "elastic_cnn.conversion:convert", "elastic_cnn.conversion:Calibration"


@dataclass
class Prepared:
    """Test inputs of training samples in a random order; those that cannot be read are left out with a warning."""

    samples: Any
    card: NetworkCard
    seed: int

    def __iter__(self) -> Iterator[Tensor]:
        left_out, before = LeftOut(), self.samples.transform
        self.samples.transform = eval_transform(**asdict(self.card.input))
        try:
            for index in np.random.default_rng(self.seed).permutation(len(self.samples)):
                try:
                    yield self.samples[int(index)]["image"]
                except UnreadableSample as error:
                    left_out.note(error.path, error.reason)
        finally:
            self.samples.transform = before


def make_elastic(
    recipe: Recipe, network: nn.Module, card: NetworkCard, samples: Samples | None
) -> tuple[nn.Module, NetworkCard]:
    """The network as the recipe's `elastic` and `convert` ask for it, and its card; prints what was done.

    `ValueError` where it is to be converted and the task has no photos to offer, or nothing in it can be.
    """
    if not recipe.elastic:
        return network, card
    if recipe.convert is None:
        with concerning("elastic"):
            network = elasticize(network, inplace=True)
        print(network.elastic_report)
        return network, card
    if samples is None or task_spec(recipe.task).per_pixel:
        raise Refused(
            f"convert does not go with {recipe.task}: leave it out, or convert first and give weights=FILE", "convert"
        )
    print(f"converting the network on {min(recipe.convert.photos, len(samples))} training photos, without their labels")
    photos: Any = Prepared(samples, card, recipe.seed)
    calibration = loaded(CALIBRATION)(recipe.convert.photos, seed=recipe.seed, task=recipe.task)
    with torch.random.fork_rng(devices=[]):
        converted = loaded(CONVERTER)(network, photos, budget=recipe.convert.budget, calibration=calibration)
    report = converted.conversion_report
    print(report)
    told = {key: value for key, value in report.to_dict().items() if key != "seconds"}  # equal runs, equal files
    return converted.train(), replace(card, info={**card.info, "conversion": told})


def files_of(recipe: Recipe, network: nn.Module, card: NetworkCard) -> dict[str, Callable[[Path], Any]]:
    """What a run's folder keeps of a conversion that this recipe asks for."""
    if recipe.convert is None:
        return {}
    start = copy.deepcopy(network)
    return {START: lambda path: save_checkpoint(path, start, card)}


def recipe_of_the_start(recipe: Recipe, folder: RunFolder, settings: Settings) -> Recipe:
    """The recipe that makes the network of a run: of a resumed one, from what its conversion came to.

    `ValueError` where that is gone, or several processes would convert beside each other.
    """
    if recipe.convert is None:
        return recipe
    if settings.resume and folder.recipe_yaml.is_file():
        start = folder.path / START
        if not start.is_file():
            raise ValueError(f"{start} is gone, with which the run began: start anew with --overwrite")
        return replace(recipe, network=None, network_kwargs={}, weights=str(start), elastic=False, convert=None)
    if settings.processes > 1:
        raise ValueError(
            "convert works in one process: convert first (`elastic elasticize --photos`), and give weights=FILE"
        )
    return recipe
