"""A run of a study as a job for the training engine: its images lie in memory, all else is the recipe's."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from elastic_cnn.study.grid import Data
from elastic_cnn.study.kinds import load_stores
from elastic_cnn.study.stores import Photos, Store, Views
from elastic_cnn.tasks.elastic_start import files_of
from elastic_cnn.tasks.geometry import GeometryOptions
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.spec import study_kind
from elastic_cnn.tasks.task import Job, Task
from elastic_cnn.tasks.weights import make_network


class StoreShelf:
    """Stores by what they hold, loaded once a process."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._stores: dict[Any, tuple[Store, Store]] = {}

    def get(self, data: Data, recipe: Recipe) -> tuple[Store, Store]:
        """The stores to train and to test on."""
        key = (data, recipe.side, repr(recipe.options))
        if key not in self._stores:
            self._stores[key] = load_stores(data, self.root, recipe.side, task_options(recipe))
        return self._stores[key]


def make_task(network: nn.Module, recipe: Recipe, train: Store, val: Store, mean: Any, std: Any) -> Task:
    """The recipe's task on pictures in memory, its training views as large as the recipe says."""
    task: Any = study_kind(train.kind).task(network, train, task_options(recipe))
    task.equip(train, val, recipe.side, mean, std)
    return task


def make_views(data: Data, recipe: Recipe, train: Store, views: int | None) -> Views:
    """Training samples: views as the kind of data and the recipe's options say."""
    options = task_options(recipe)
    if isinstance(options, GeometryOptions):
        options.refuse_all_but(("hflip",), "studies keep their pictures in memory as squares and know hflip alone")
    for key, usual in (("split", None), ("skew", "ignore"), ("labels", "folders")):
        if getattr(options, key, usual) != usual:
            raise ValueError(
                f"options.{key}={getattr(options, key)}: a study's data is divided and drawn as it is; leave it out"
            )
    length = None if views is None else max(views, recipe.batch_size)
    return Views(train, study_kind(data.kind).view(train, recipe.side, options), length)


@dataclass(frozen=True)
class StudyJob:
    """One run of a study; `build` is what the engine calls. views: images to train on, None for whole epochs."""

    data: Data
    train_store: Store
    val_store: Store
    views: int | None

    def build(self, recipe: Recipe, data: str, settings: Settings) -> Job:
        """The recipe's network for the images in memory; `data` is but their name."""
        changes = {"crop_pct": 1.0, **dict(study_kind(self.data.kind).card)}
        network, card = make_network(recipe, self.train_store.classes, Photos(self.train_store), **changes)
        if len(card.input.mean) != 3:
            raise ValueError("studies keep pictures in memory as RGB: leave out network_kwargs.in_chans")
        task = make_task(network, recipe, self.train_store, self.val_store, card.input.mean, card.input.std)
        train = make_views(self.data, recipe, self.train_store, self.views)
        return Job(task, card, train, Views(self.val_store), files=files_of(recipe, network, card))
