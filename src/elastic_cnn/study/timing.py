"""How long a training step takes, for budgets of equal time."""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.files import write_json
from elastic_cnn.measure.machine import device_line
from elastic_cnn.measure.medians import ratio_of
from elastic_cnn.measure.turns import in_turns
from elastic_cnn.nn import channels_last
from elastic_cnn.study.grid import Run
from elastic_cnn.study.job import StoreShelf, StudyJob
from elastic_cnn.study.results import read_timing
from elastic_cnn.tasks.optim import make_optimizer
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.task import Task
from elastic_cnn.tasks.training_form import use_training_form

ROUNDS, STEPS = 9, 2
AUTOCAST = {"fp32": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def timing_path(results: str | Path, run: Run) -> Path:
    """Where the step times of a cell against its base lie: one file for all its seeds."""
    return Path(results) / run.study.name / f"{run.cell}-timing.json"


def equal_time_views(run: Run, results: str | Path) -> int | None:
    """The views of a run: the recipe's, or those that take as long as the base's do; None for whole epochs.

    `LookupError` where the step times are not measured yet.
    """
    views = run.training.views
    if run.entry.equal_time_to is None or views is None:
        return views
    path = timing_path(results, run)
    if not path.is_file():
        raise LookupError(f"{path} is not there yet")
    ratio = read_timing(path)["ratio"]
    batch = run.make_recipe().batch_size
    return max(batch, round(views / ratio / batch) * batch)


def measure_step_times(run: Run, results: str | Path, shelf: StoreShelf, device: torch.device) -> dict[str, Any]:
    """Measure a training step of the run's network and of its base, in turns, and write them down.

    On a processor the time of this process is taken, which other work on the machine hardly changes; on a GPU the
    elapsed time. `ratio` is the median over the rounds of (network / base).
    """
    assert run.entry.equal_time_to is not None
    base = run.sibling(run.entry.equal_time_to)
    steps = [_Stepper(one, shelf, device) for one in (base, run)]
    base_times, times = in_turns([stepper.time for stepper in steps], ROUNDS)
    found = {
        "base": base.network,
        "network": run.network,
        "base_ms": round(1000 * statistics.median(base_times), 3),
        "network_ms": round(1000 * statistics.median(times), 3),
        "ratio": round(ratio_of(times, base_times).median, 4),
        "batch_size": base.make_recipe().batch_size,
        "clock": "elapsed" if device.type == "cuda" else "processor",
        "hardware": device_line(device),
    }
    write_json(timing_path(results, run), found)
    return found


class _Stepper:
    """Training steps of one run's network on its own first images, in the form that the run trains in."""

    def __init__(self, run: Run, shelf: StoreShelf, device: torch.device) -> None:
        self.recipe = run.make_recipe()
        stores = shelf.get(run.material, self.recipe)
        job = StudyJob(run.material, *stores, None).build(self.recipe, run.material.kind, Settings())
        self.task: Task = job.task.to(device).train()
        if self.recipe.channels_last:
            channels_last(self.task)
        use_training_form(self.recipe, self.task.network, device)
        self.optimizer, self.device = make_optimizer(self.task, self.recipe.optimizer), device
        samples = [job.train[index % len(job.train)] for index in range(self.recipe.batch_size)]
        self.batch = torch.utils.data.default_collate(samples)
        self.batch = {name: values.to(device) for name, values in self.batch.items()}

    def time(self) -> float:
        """Seconds a step."""
        cuda = self.device.type == "cuda"
        clock = time.perf_counter if cuda else time.process_time
        dtype = AUTOCAST[self.recipe.precision]
        if cuda:
            torch.cuda.synchronize(self.device)
        began = clock()
        for _ in range(STEPS):
            with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
                loss = self.task.training_step(self.batch, 0)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize(self.device)
        return (clock() - began) / STEPS
