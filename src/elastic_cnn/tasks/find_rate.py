"""A learning-rate range test before a run: Lightning's, the rates of parameter groups in their proportion."""

import copy
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.tuner import Tuner

from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.data.sampler import TrainBatches, make_loader
from elastic_cnn.tasks.console import Console, Unreadable
from elastic_cnn.tasks.freeze import Frozen
from elastic_cnn.tasks.optim import make_optimizer
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.task import Job

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 80
BEGIN, END = 8, 2  # steps at both ends that are no evidence


class _RangeTest(LightningModule):
    """A copy of a task, as Lightning's tuner trains it."""

    def __init__(self, job: Job, recipe: Recipe, console: Console) -> None:
        super().__init__()
        self.task, self.recipe, self.console = copy.deepcopy(job.task), recipe, console
        self.spec, self.unreadable = job.card.input, Unreadable()
        self.frozen = Frozen(self.task.network, recipe.freeze)

    def configure_optimizers(self) -> Any:
        return make_optimizer(self.task, self.recipe.optimizer)

    def training_step(self, batch: dict[str, Any], number: int) -> Any:
        self.frozen.keep_still()
        self.unreadable.take(batch, self.console)
        if "image" not in batch:
            return None
        images = normalise(batch["image"], self.spec.mean, self.spec.std)
        return self.task.training_step({**batch, "image": images}, number)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        """Lightning gives every group the same rate; here each has it times its own factor."""
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * group.get("lr_factor", 1.0)
        optimizer.step(closure)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def with_found_rate(job: Job, recipe: Recipe, settings: Settings, console: Console) -> Recipe:
    """The recipe with the rate at which the loss falls fastest, over a range test on a copy of the job's network.

    The loss is smoothed and seen over the logarithm of the rate. Raises `ValueError` with several processes, and where
    the loss falls nowhere.
    """
    if settings.processes > 1:
        raise ValueError("--find-lr works in one process: find the rate first, then give optimizer.lr=")
    count = recipe.batch_size // recipe.accumulate
    batches = TrainBatches(len(job.train), count, recipe.seed, balance=job.balance)
    loader = make_loader(job.train, batches, seed=recipe.seed, workers=settings.workers)
    with tempfile.TemporaryDirectory() as place, _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        trainer = Trainer(
            accelerator=settings.accelerator, devices=1, max_epochs=-1, logger=False, default_root_dir=place,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        hidden = nullcontext() if console.shown and console.progress else redirect_stderr(io.StringIO())
        with hidden:
            finder = Tuner(trainer).lr_find(
                _RangeTest(job, recipe, console),
                loader,
                min_lr=LOWEST,
                max_lr=HIGHEST,
                num_training=STEPS,
                early_stop_threshold=4.0,
                update_attr=False,
            )
    assert finder is not None
    rate = steepest(finder.results["lr"], finder.results["loss"])
    console.line(f"learning rate found: {rate:.2g} (in place of {recipe.optimizer.lr:g})")
    return replace(recipe, optimizer=replace(recipe.optimizer, lr=rate))


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate, to two digits, at which a smoothed loss falls fastest for a rate so many times larger."""
    points = [(math.log(r), loss) for r, loss in zip(rates, losses, strict=False) if math.isfinite(loss)][BEGIN:-END]
    slopes = [
        ((after[1] - before[1]) / (after[0] - before[0]), here[0])
        for before, here, after in zip(points, points[2:], points[4:], strict=False)
    ]
    fastest = min(slopes, default=(0.0, 0.0))
    if fastest[0] >= 0:
        raise ValueError("--find-lr: the loss falls at no rate: set optimizer.lr yourself")
    return float(f"{math.exp(fastest[1]):.2g}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on its Trainer, which the user of a recipe never sees."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    loggers += [logging.getLogger("lightning.pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
