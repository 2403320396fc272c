"""Optimizers and learning-rate schedules: timm's optimizers by name, parameter groups, and the rate as a pure function
of the step, so that a resumed run needs no schedule state."""

import math
from typing import Any

import timm.optim
import torch

from elastic_cnn.tasks.recipe import Optimizer, Schedule
from elastic_cnn.tasks.task import Task
from elastic_cnn.zoo.factory import nearest

PLAIN_NAMES = {"sgd": "momentum", "nesterov": "sgd"}  # timm calls SGD with Nesterov's momentum `sgd`


def make_optimizer(task: Task, options: Optimizer) -> torch.optim.Optimizer:
    """The optimizer over the task's parameter groups.

    Each group keeps `lr_factor`. With `decay_norm_and_bias=False`, vectors (norms, biases) get a group without decay.
    Raises `ValueError` for an unknown optimizer, arguments that it does not take, and where nothing is trainable.
    """
    groups = _groups(task, options)
    if not groups:
        raise ValueError("the network has no trainable parameter")
    name = PLAIN_NAMES.get(options.name, options.name)
    known = sorted({"nesterov", *map(str, timm.optim.list_optimizers())})
    if name not in known:
        raise ValueError(f"unknown optimizer {options.name!r}{nearest(options.name, known)}")
    arguments: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay, **options.options}
    try:
        return timm.optim.create_optimizer_v2(groups, opt=name, momentum=options.momentum, **arguments)
    except TypeError as error:
        raise ValueError(f"optimizer {options.name} does not take {options.options}: {error}") from error


def _groups(task: Task, options: Optimizer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for group in task.parameter_groups():
        own = [(name, p) for name, p in group.parameters if p.requires_grad]
        if repeated := [name for name, p in own if id(p) in seen]:
            raise ValueError(f"the parameter {repeated[0]} is in two groups")
        seen.update(id(p) for _, p in own)
        decay = options.weight_decay * group.decay_factor
        parts = {group.name: ([p for _, p in own], decay)}
        if not options.decay_norm_and_bias:
            parts = {
                group.name: ([p for _, p in own if p.ndim > 1], decay),
                f"{group.name}, norms and biases": ([p for _, p in own if p.ndim <= 1], 0.0),
            }
        groups += [
            {
                "params": p,
                "name": name,
                "weight_decay": d,
                "lr": options.lr * group.lr_factor,
                "lr_factor": group.lr_factor,
            }
            for name, (p, d) in parts.items()
            if p
        ]
    return groups


def lr_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor on the learning rate for optimizer step `step` (from 0, over the whole run)."""
    total = steps_per_epoch * epochs
    warmup = min(schedule.warmup_epochs * steps_per_epoch, total)
    ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if schedule.name == "step":
        epoch = step // steps_per_epoch
        return ramp * schedule.factor ** sum(milestone <= epoch for milestone in schedule.milestones)
    if schedule.name == "poly":
        return ramp * max(schedule.final, (1 - step / total) ** schedule.power)
    if schedule.name == "cosine":
        done = max(0.0, step - warmup) / max(1.0, total - warmup)
        return ramp * (schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * done)))
    return ramp


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """`rate` times each group's `lr_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_factor", 1.0)
