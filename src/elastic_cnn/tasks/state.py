"""The state of a loop for a resume: what of it goes into last.ckpt, and back, after a look at every part."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elastic_cnn.data.fingerprint import fingerprint
from elastic_cnn.tasks.run_log import Logged, RunLog
from elastic_cnn.tasks.task import Job

if TYPE_CHECKING:
    from elastic_cnn.tasks.loop import Loop

PARTS: dict[str, Any] = {
    "task": dict, "ema": dict | None, "optimizer": dict, "precision": dict, "progress": dict, "rows": dict,
    "keeper": dict, "unreadable": list, "results": dict,
}  # fmt: skip
LIKE_PARAMETERS = ("momentum_buffer", "exp_avg", "exp_avg_sq")  # of an optimizer's state: each as large as its weights


def describe_data(job: Job) -> dict[str, Any]:
    """What a state keeps of the data: classes, and of each split the number of its samples and their fingerprint."""
    splits = {"train": job.train, "val": job.val}
    return {
        "classes": list(job.card.classes),
        **{name: {"images": len(samples), "fingerprint": fingerprint(samples)} for name, samples in splits.items()},
    }


def make_state(loop: "Loop", log: RunLog) -> dict[str, Any]:
    """All that `restore` needs: tensors and primitives alone."""
    return {
        "task": loop.task.state_dict(),
        "ema": None if loop.ema is None else loop.ema.module.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "precision": loop.fabric._precision.state_dict(),
        "progress": {"epoch": loop.epoch, "step": loop.step, "pending": loop.pending},
        "rows": log.rows(),
        "logged": log.steps(),
        "keeper": loop.keeper.state(),
        "unreadable": sorted(loop.unreadable.paths),
        "results": loop.results,
        "data": loop.data,
        "spent": {"seconds": loop.seconds, "images": loop.images},
    }


def restore(loop: "Loop", state: dict[str, Any], path: Path) -> dict[str, Logged]:
    """Take up `state`, which the file `path` held; returns how far the logs had come.

    `ValueError` names the file where it is the state of something else, lies beyond the run's end, or is of other data
    than the loop's, unless the settings allow that.
    """
    try:
        _check_parts(state)
        other = _other_data(loop, state, path)
        logged = _restore(loop, state)
    except _WrongState as wrong:
        raise ValueError(
            f"{path} holds no state of this run ({wrong}): remove it, and --resume takes the one before, if any"
        ) from wrong
    if other:
        loop.console.warn(f"{other}; going on with what is there now")
    return logged


class _WrongState(Exception):
    """What does not fit."""


def _check_parts(state: dict[str, Any]) -> None:
    for name, kind in PARTS.items():
        if name not in state or not isinstance(state[name], kind):
            raise _WrongState(f"its part {name!r} is missing or of another kind")
    progress, rows = state["progress"], state["rows"]
    numbers = [progress.get("epoch"), progress.get("step"), *(rows.get(name) for name in RunLog.NAMES)]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise _WrongState("its counts of epochs, steps and rows are no whole numbers")
    try:
        json.dumps([progress, state["results"], state["keeper"], state["unreadable"]])
        total, count = progress["pending"]
        float(total), int(count), float(state["keeper"]["best"] or 0)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise _WrongState(f"its progress or results: {error}") from error


def _other_data(loop: "Loop", state: dict[str, Any], path: Path) -> str:
    """What sets the data apart from those that the state is of, empty where nothing does. `ValueError` as above."""
    before, now = state.get("data"), loop.data
    if not isinstance(before, dict):
        loop.console.warn(f"{path} does not say which data it is of: it was written by an earlier version")
        return ""
    if before == now:
        return ""
    try:
        difference, same_classes = _difference(before, now), before["classes"] == now["classes"]
    except (TypeError, KeyError, AttributeError) as error:
        raise _WrongState(f"what it says of its data: {error!r}") from error
    if not same_classes:
        raise ValueError(
            f"{path} is of other data: {difference}; its outputs bear those names, so give it the same data, or start "
            f"a new run from its weights with weights={path.parent}"
        )
    if not loop.settings.allow_other_data:
        raise ValueError(
            f"{path} is of other data: {difference}; give it the same, or --allow-other-data to go on with these"
        )
    return f"{path} is of other data: {difference}"


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Of classes, else of splits, in words."""
    if before["classes"] != now["classes"]:
        return _other_classes(before["classes"], now["classes"])
    words = []
    for split, name in (("train", "training"), ("val", "validation")):
        if before[split] != now[split]:
            counts = before[split]["images"], now[split]["images"]
            words.append(
                f"{counts[1]} {name} images in place of {counts[0]}"
                if counts[0] != counts[1]
                else f"{counts[0]} {name} images, of other names, order or sizes"
            )
    return " and ".join(words)


def _other_classes(before: Sequence, now: Sequence) -> str:
    """What sets these classes apart: how many, which are missing, which are new."""
    gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
    lists = [f"{word} {', '.join(map(str, names[:8]))}" for word, names in (("without", gone), ("with", new)) if names]
    if not lists:
        return "its classes are in another order"
    counts = f"{len(now)} classes in place of {len(before)}" if len(now) != len(before) else "its classes are others"
    return f"{counts}, {' and '.join(lists)}"


def _restore(loop: "Loop", state: dict[str, Any]) -> dict[str, Logged]:
    progress, rows, epochs, steps = state["progress"], state["rows"], loop.recipe.epochs, loop.batches.steps
    epoch, step = progress["epoch"], progress["step"]
    data = state.get("data")
    same_steps = not isinstance(data, dict) or data["train"]["images"] == len(loop.job.train)
    if epoch > epochs or (epoch == epochs and step) or (same_steps and step > steps):
        raise _WrongState(
            f"it lies {step} steps into epoch {epoch + 1}, beyond the end of a run of {epochs} epochs of {steps} steps"
        )
    try:
        loop.task.load_state_dict(state["task"])
        if loop.ema is not None:
            loop.ema.module.load_state_dict(state["ema"])
        loop.optimizer.load_state_dict(state["optimizer"])
        _check_optimizer(loop.optimizer)
        loop.fabric._precision.load_state_dict(state["precision"])
        loop.keeper.restore(state["keeper"])
        spent = state.get("spent", {"seconds": 0.0, "images": 0})
        loop.seconds, loop.images = float(spent["seconds"]), int(spent["images"])
        last = state.get("logged", {"train": epoch * steps + step, "val": epoch * steps})
        logged = {name: Logged(rows[name], int(last[name])) for name in RunLog.NAMES}
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _WrongState(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
    loop.epoch, loop.step, loop.pending = epoch, min(step, steps), list(progress["pending"])
    loop.unreadable.paths = set(map(os.path.abspath, state["unreadable"]))
    loop.results = state["results"]
    return logged


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """`ValueError` for averages of other shapes than their weights, which an optimizer takes and fails on later."""
    for parameter, values in optimizer.state.items():
        for name in LIKE_PARAMETERS:
            value = values.get(name)
            if not isinstance(value, torch.Tensor) or value.ndim != parameter.ndim:  # some keep one number a weight
                continue
            if value.shape != parameter.shape:
                raise ValueError(f"the optimizer's {name} of shape {tuple(value.shape)} is for other weights")
