"""The demo's images as a job for the training engine."""

from dataclasses import dataclass

from elastic_cnn.demo.data import DemoData
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.task import Job
from elastic_cnn.tasks.weights import make_network


@dataclass(frozen=True)
class DemoJob:
    """The demo's images, which lie in memory; `build` is what the engine calls."""

    data: DemoData

    def build(self, recipe: Recipe, data: str, settings: Settings) -> Job:
        """The recipe's network for the images in memory; `data` is but their name."""
        network, card = make_network(recipe, self.data.classes, crop_pct=1.0)
        task = Classification(network, len(self.data.classes), task_options(recipe))
        return Job(task, card, self.data.train, self.data.val)
