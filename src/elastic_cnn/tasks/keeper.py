"""Keeps the weights of a run for other commands: the last and the best, each with its card."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.task import Task
from elastic_cnn.zoo.checkpoint import NetworkCard, save_checkpoint


class Keeper:
    """best, best_epoch, best_results: of the validation whose `task.metric` was best so far."""

    def __init__(self, folder: RunFolder, card: NetworkCard, task: Task) -> None:
        self.folder, self.card, self.task = folder, card, task
        self.best: float | None = None
        self.best_epoch = 0
        self.best_results: dict[str, Any] = {}
        self.pictures: list[Path] = []

    def keep(self, epoch: int, results: dict[str, Any], recipe: Recipe) -> None:
        """Write last.safetensors, and best.safetensors where this epoch (from 1) is better than all before."""
        info = {**self.card.info, "recipe": recipe.to_dict(), "epoch": epoch, "results": results}
        card = replace(self.card, info=info)
        save_checkpoint(self.folder.last_safetensors, self.task.network, card)
        known = results[self.task.metric]
        value = math.nan if known is None else float(known)
        better = self.best is None or (value > self.best if self.task.maximise else value < self.best)
        if better and math.isfinite(value):
            self.best, self.best_epoch, self.best_results = value, epoch, results
            save_checkpoint(self.folder.best_safetensors, self.task.network, card)

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "best_results": self.best_results}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.best_results = state["best_results"]
