"""The demo's images as a job for the training engine."""

from types import ModuleType

from elastic_cnn.demo.data import DemoData
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.task import Job
from elastic_cnn.tasks.weights import make_network


class DemoJob(ModuleType):
    """A task module (see `tasks/training.py`) whose data lie in memory."""

    def __init__(self, data: DemoData) -> None:
        super().__init__("elastic_cnn.demo.job")
        self.data = data

    def build(self, recipe: Recipe, data: str, settings: Settings) -> Job:
        """The recipe's network for the images in memory; `data` is but their name."""
        network, card = make_network(recipe, self.data.classes, crop_pct=1.0)
        task = Classification(network, len(self.data.classes), task_options(recipe))
        return Job(task, card, self.data.train, self.data.val)
