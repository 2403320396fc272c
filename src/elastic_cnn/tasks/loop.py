"""The one training loop. Its state is saved between optimizer steps, and all that is random is seeded from its place in
the run, so a run that is killed and resumed ends with the same weights, to the bit, as an unbroken one."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning import Fabric
from timm.utils import ModelEmaV3
from torch import Tensor

from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.data.sampler import TestBatches, TrainBatches, closed, make_loader, seed_generators
from elastic_cnn.nn import channels_last, set_blend
from elastic_cnn.tasks.console import Console, Unreadable
from elastic_cnn.tasks.failures import check_same_start
from elastic_cnn.tasks.finite import NonFiniteLoss, is_broken, not_finite
from elastic_cnn.tasks.freeze import Frozen
from elastic_cnn.tasks.interrupts import Interrupts
from elastic_cnn.tasks.keeper import Keeper
from elastic_cnn.tasks.loggers import make_loggers
from elastic_cnn.tasks.optim import lr_factor, make_optimizer, set_learning_rate
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.run_log import Logged, RunLog
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.state import describe_data, make_state, restore
from elastic_cnn.tasks.strict import concerning
from elastic_cnn.tasks.task import Batch, Job, Task
from elastic_cnn.tasks.training_form import use_training_form
from elastic_cnn.tasks.weights import make_teacher

STEP_STREAM = 1  # keeps the loop's random numbers apart from those of the samples


__all__ = ["Loop", "NonFiniteLoss", "is_broken"]


class Loop:
    """Trains a job under a recipe, from its folder's state where there is one.

    After `run`: `results` of the last validation, `keeper` with the best, `unreadable`, and over all stretches of the
    run up to its last state `seconds` and `images` (trained on by all processes).
    """

    def __init__(self, fabric: Fabric, job: Job, recipe: Recipe, settings: Settings, folder: RunFolder) -> None:
        self.fabric, self.job, self.recipe, self.settings, self.folder = fabric, job, recipe, settings, folder
        self.task: Task = job.task
        world, rank = fabric.world_size, fabric.global_rank
        with concerning("accumulate" if recipe.accumulate > 1 else "batch_size"):
            self.batches = TrainBatches(
                len(job.train),
                recipe.batch_size,
                recipe.seed,
                accumulate=recipe.accumulate,
                rank=rank,
                world_size=world,
                balance=job.balance,
            )
        cuda = fabric.device.type == "cuda"
        loader: dict[str, Any] = {"seed": recipe.seed, "pin_memory": cuda}
        self.train_loader = make_loader(job.train, self.batches, workers=settings.workers, **loader)
        val_size = recipe.val_batch_size or recipe.batch_size // (world * recipe.accumulate)
        self.val_loader = make_loader(
            job.val, TestBatches(len(job.val), val_size, rank, world), workers=settings.workers, **loader
        )
        if recipe.channels_last:
            channels_last(self.task)
        self.teacher = make_teacher(recipe, job.card, self.task.network)
        self.frozen = Frozen(self.task.network, recipe.freeze)
        self.training_form = use_training_form(recipe, self.task.network, fabric.device)
        if recipe.compile:
            self.task.network.compile()
        self.model, self.optimizer = fabric.setup(self.task, make_optimizer(self.task, recipe.optimizer))
        self.ema = (
            None if recipe.ema is None else ModelEmaV3(self.task.network, recipe.ema, use_warmup=True, foreach=True)
        )
        self.keeper = Keeper(folder, job.card, self.task)
        self.unreadable = Unreadable(settings.strict)
        self.epoch = self.step = 0  # epochs finished, steps done in this one
        self.images, self.seconds, self.began, self.rate = 0, 0.0, 0.0, 0.0
        self.data = describe_data(job)
        self.pending = [0.0, 0]  # sum and number of losses since the last row of train.csv
        self.results: dict[str, Any] = {}

    @property
    def total_step(self) -> int:
        """Optimizer steps done since the run began."""
        return self.epoch * self.batches.steps + self.step

    def unreadable_files(self) -> set[str]:
        """The files that could not be read, of all processes."""
        if self.fabric.world_size == 1:
            return set(self.unreadable.paths)
        found: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(found, sorted(self.unreadable.paths))
        return {path for paths in found for path in paths}

    def run(self, console: Console, interrupts: Interrupts) -> None:
        """Train to the end. `Interrupted` after SIGINT or SIGTERM (the state is saved), `NonFiniteLoss` as it says."""
        self.console, self.interrupts = console, interrupts
        if self.training_form:
            console.line(self.training_form)
        logged = self._restore()
        check_same_start(self.fabric, self.folder.path, self.total_step)
        self.log = None
        if self.fabric.is_global_zero:
            others = make_loggers(self.settings.loggers, self.folder, self.recipe)
            self.log = RunLog(self.folder, logged, console.warn, others)
        self.began = time.perf_counter()
        with closed(self.train_loader), closed(self.val_loader), self.log or nullcontext():
            while self.epoch < self.recipe.epochs and not self._has_stopped_improving():
                self._train_epoch()
                last = self.epoch + 1 == self.recipe.epochs
                if last or (self.epoch + 1) % self.recipe.val_every == 0:
                    self._validate_and_keep()
                self.epoch, self.step = self.epoch + 1, 0
                self._save_state()

    def _has_stopped_improving(self) -> bool:
        """Whether the recipe's patience is at its end, on the first process, which keeps the best."""
        patience, best = self.recipe.patience, self.keeper.best_epoch
        if patience is None:
            return False
        stop = bool(self.fabric.broadcast(bool(best) and self.epoch - best >= patience))
        if stop:
            self.console.line(f"no epoch was better than {best}: stopped after {self.epoch} (patience={patience})")
        return stop

    def _train_epoch(self) -> None:
        self.batches.start_at(self.epoch, self.step)
        self.task.train()
        self.frozen.keep_still()
        if self.step == self.batches.steps:  # interrupted between the last step and the validation
            return
        size = self.recipe.batch_size
        with self.console.bar(
            f"epoch {self.epoch + 1}/{self.recipe.epochs}", self.batches.steps * size, self.step * size
        ) as bar:
            parts: list[Batch] = []
            began = time.perf_counter()
            for part in self.train_loader:
                parts.append(part)
                if len(parts) < self.recipe.accumulate:
                    continue
                loss, seen = self._optimizer_step(parts)
                parts = []
                bar.update(size)
                self.images += seen * self.fabric.world_size
                began = self._log_step(loss, bar, began)
                every = self.settings.checkpoint_every
                stop = self.interrupts.agreed(self.fabric)
                if stop or (every and self.total_step % every == 0):
                    self._save_state()
                if stop:
                    raise self.interrupts.error(self.folder.path)

    def _optimizer_step(self, parts: list[Batch]) -> tuple[float, int]:
        """One step from `accumulate` batches; returns the mean loss of all processes and the images here."""
        recipe, step = self.recipe, self.total_step
        self.rate = recipe.optimizer.lr * lr_factor(recipe.schedule, step, self.batches.steps, recipe.epochs)
        set_learning_rate(self.optimizer, self.rate)
        if recipe.blend is not None:
            set_blend(self.task.network, recipe.blend.at(step / (self.batches.steps * recipe.epochs)))
        losses: list[Tensor] = []
        seen = 0
        readable = [part for part in parts if self._note_unreadable(part)]
        for number, part in enumerate(readable):
            self._seed(number)
            batch = self._to_device(part)
            seen += len(batch["image"])
            more = number + 1 < len(readable)
            waits = self.fabric.world_size > 1 and more
            with self.fabric.no_backward_sync(self.model) if waits else nullcontext():
                loss = self.model.training_step(batch, number)
                if self.teacher is not None:
                    with self.fabric.autocast():
                        loss = self.teacher.mix(loss)
                self.fabric.backward(loss / len(readable))
            losses.append(loss.detach())
        mean = self._mean_loss(losses, readable)
        if readable:
            if recipe.clip_grad is not None:
                self._clip(recipe.clip_grad, readable)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.task.network, step=self.total_step)
        return mean, seen

    def _seed(self, number: int) -> None:
        """Seed what a training step draws (dropout, stochastic depth, mixing) from its place in the run."""
        seed_generators(self.recipe.seed, self.epoch, self.step, number, self.fabric.global_rank, STEP_STREAM)
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(torch.initial_seed())

    def _note_unreadable(self, part: Batch) -> bool:
        """Count and drop the broken files of a batch; whether anything is left of it."""
        self.unreadable.take(part, self.console)
        if "image" not in part and self.fabric.world_size > 1:
            raise ValueError(
                f"no image of a batch can be read, the last being {self.unreadable.last}: remove the broken files"
            )
        return "image" in part

    def _to_device(self, part: Batch) -> Batch:
        batch = self.fabric.to_device(part)
        batch["image"] = normalise(batch["image"], self.job.card.input.mean, self.job.card.input.std)
        if self.recipe.channels_last:
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        return batch

    def _mean_loss(self, losses: list[Tensor], parts: list[Batch]) -> float:
        """The loss of a step, over all processes; `NonFiniteLoss` on all of them where one's is not finite."""
        if not losses:
            return math.nan
        local = torch.stack(losses).float().mean()
        mean = float(torch.as_tensor(self.fabric.all_reduce(local, reduce_op="mean")))
        if not math.isfinite(mean):
            raise not_finite(
                self, f"the loss became {mean}", [p for x, p in zip(losses, parts, strict=True) if is_broken(x)]
            )
        return mean

    def _clip(self, most: float, parts: list[Batch]) -> None:
        """Clip the gradient's norm. In half precision an infinite one is skipped by the scaler, else an error."""
        norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=most, error_if_nonfinite=False)
        if self.recipe.precision != "16-mixed" and is_broken(torch.as_tensor(norm)):
            raise not_finite(self, f"the gradient's norm became {float(torch.as_tensor(norm))}", parts)

    def _check_weights(self) -> None:
        """Weights that are not finite are never kept: a gradient may overflow where the loss did not."""
        if any(is_broken(parameter.detach().sum()) for parameter in self.task.parameters()):
            raise not_finite(self, "weights became NaN or infinite", [])

    def _log_step(self, loss: float, bar: Any, began: float) -> float:
        """A row of train.csv each `log_every` steps; returns when the next row's time began."""
        if math.isfinite(loss):
            self.pending = [self.pending[0] + loss, self.pending[1] + 1]
        bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
        if self.total_step % self.recipe.log_every:
            return began
        now = time.perf_counter()
        rate = self.recipe.log_every * self.recipe.batch_size / (now - began)
        values = {"loss": self.pending[0] / max(1, self.pending[1]), "lr": self.rate, "images_per_s": round(rate, 1)}
        if self.log is not None:
            self.log.append("train", self.epoch + 1, self.total_step, values)
        self.pending = [0.0, 0]
        return now

    def _validate_and_keep(self) -> None:
        if self.recipe.blend is not None:
            set_blend(self.task.network, 1.0)  # what is kept is tested as it will be used
        with self._validated_weights():
            results = self._validate()
            if results is not None and self.log is not None:
                self._keep(results)
        if results is None:  # asked to stop: validated again after a resume
            self._save_state()
            raise self.interrupts.error(self.folder.path)
        self.results = results

    def _validate(self) -> dict[str, Any] | None:
        """The task's results on the validation split; None where the run is asked to stop."""
        self._share_buffers()
        self.task.eval()
        seen = torch.tensor(0, device=self.fabric.device)  # photos that could be read
        with self.console.bar("validation", len(self.job.val)) as bar, torch.no_grad():
            for number, part in enumerate(self.val_loader):
                if self.interrupts.requested and self.fabric.world_size == 1:
                    self.task.validation_results()  # forgets the counts
                    return None
                broken = self.unreadable.take(part, self.console)
                if "image" in part:
                    seen += len(part["image"])
                    with self.fabric.autocast():
                        batch = self._to_device(part)
                        label = self.teacher.label if self.job.taught and self.teacher is not None else dict
                        self.task.validation_step(label(batch), number)
                bar.update((broken + len(part.get("image", ()))) * self.fabric.world_size)
        if not self.fabric.all_reduce(seen, reduce_op="sum"):
            raise ValueError(f"no photo of the validation can be read, the last being {self.unreadable.last}")
        return self.task.validation_results()

    def _keep(self, results: dict[str, Any]) -> None:
        """Log and keep what was validated, on the first process."""
        scalars = {name: value for name, value in results.items() if isinstance(value, int | float)}
        assert self.log is not None
        self._check_weights()
        self.log.append("val", self.epoch + 1, self.total_step, scalars)
        self.keeper.keep(self.epoch + 1, results, self.recipe)
        drawn = self.task.save_pictures(self.folder.pictures, self.epoch + 1)
        for path in drawn:
            self.log.picture(path, self.total_step)
        self.keeper.pictures = drawn or self.keeper.pictures
        self.console.line(f"epoch {self.epoch + 1}/{self.recipe.epochs}: {self.task.headline(results)}")

    @contextmanager
    def _validated_weights(self) -> Iterator[None]:
        """Within the block the network has its averaged weights, where an average is kept."""
        if self.ema is None:
            yield
            return
        own = {name: tensor.clone() for name, tensor in self.task.network.state_dict().items()}
        self.task.network.load_state_dict(self.ema.module.state_dict())
        try:
            yield
        finally:
            self.task.network.load_state_dict(own)

    def _share_buffers(self) -> None:
        """All processes validate with the running statistics of the first."""
        if self.fabric.world_size > 1:
            for buffer in self.task.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _save_state(self) -> None:
        """last.ckpt: all that `_restore` needs."""
        self._note_time()
        if self.log is None:
            return
        self._check_weights()
        self.folder.save_state(make_state(self, self.log))

    def _note_time(self) -> None:
        """Add what passed since it was last noted."""
        now = time.perf_counter()
        self.seconds, self.began = self.seconds + now - self.began, now

    def _restore(self) -> dict[str, Logged] | None:
        """Take up the folder's state, where there is one; returns how far its logs had come."""
        if not self.settings.resume:
            return None
        found = self.folder.load_state()
        if found is None:
            self.console.line(f"{self.folder.path} holds no state yet: starting from the beginning")
            return None
        path, state, warnings = found
        for warning in warnings:
            self.console.warn(warning)
        logged = restore(self, state, path)
        if self.epoch == self.recipe.epochs:
            self.console.line(f"{self.folder.path} has come to its end already, after step {self.total_step}")
        else:
            self.console.line(f"going on with {self.folder.path} after step {self.total_step} (epoch {self.epoch + 1})")
        return logged
