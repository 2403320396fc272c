"""Optimizers and learning-rate schedules: timm's optimizers by name, parameter groups, and the rate as a pure function
of the step, so that a resumed run needs no schedule state."""

import math
from typing import Any

import timm.optim
import torch
from timm.optim import param_groups_layer_decay

from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks.recipe import Optimizer, Schedule
from elastic_cnn.tasks.strict import Refused, concerning
from elastic_cnn.tasks.task import Task

ELSEWHERE = {  # arguments of timm's that have a key of their own
    "opt": "name", "lr": "lr", "weight_decay": "weight_decay", "momentum": "momentum",
    "filter_bias_and_bn": "decay_norm_and_bias",
}  # fmt: skip
BY_LAYER = ("layer_decay", "layer_decay_min_scale")
PLAIN_NAMES = {"sgd": "momentum", "nesterov": "sgd"}  # timm calls SGD with Nesterov's momentum `sgd`


@concerning("optimizer")
def make_optimizer(task: Task, options: Optimizer) -> torch.optim.Optimizer:
    """The optimizer over the task's parameter groups.

    Each group keeps `lr_factor`. With `decay_norm_and_bias=False`, vectors (norms, biases) get a group without decay.
    With `options.layer_decay` each layer's rate is that of the next one times it, by timm's numbers of layers.
    Raises `ValueError` for an unknown optimizer, for arguments that it does not take or that would do nothing, and
    where nothing is trainable.
    """
    arguments = {key: value for key, value in options.options.items() if key not in BY_LAYER}
    for key in arguments:
        if key in ELSEWHERE:
            text = f"optimizer.options.{key} would do nothing: set optimizer.{ELSEWHERE[key]}"
            raise Refused(text, "optimizer", "options", key)
    groups = _groups(task, options)
    if not groups:
        raise ValueError("the network has no trainable parameter")
    name = PLAIN_NAMES.get(options.name, options.name)
    known = sorted({"nesterov", *map(str, timm.optim.list_optimizers())})
    if name not in known:
        raise Refused(f"unknown optimizer {options.name!r}{did_you_mean(options.name, known)}", "optimizer", "name")
    if options.momentum != Optimizer.momentum and not timm.optim.get_optimizer_info(name).has_momentum:
        text = f"optimizer.momentum={options.momentum} would do nothing: {options.name} has no momentum"
        raise Refused(text, "optimizer", "momentum")
    given: dict[str, Any] = {"lr": options.lr, "weight_decay": options.weight_decay, "momentum": options.momentum}
    try:
        optimizer = timm.optim.create_optimizer_v2(groups, opt=name, **given, **arguments)
    except (TypeError, AssertionError) as error:
        text = f"optimizer {options.name} does not take {options.options}: {error}"
        raise Refused(text, "optimizer", "options") from error
    for key, value in arguments.items():
        if key not in optimizer.defaults or not _equal(optimizer.defaults[key], value):
            text = f"optimizer.options.{key} would do nothing: {options.name} does not take it"
            raise Refused(text, "optimizer", "options", key)
    return optimizer


def _equal(one: Any, two: Any) -> bool:
    """Lists stand for tuples."""
    return (list(one) if isinstance(one, tuple) else one) == (list(two) if isinstance(two, tuple) else two)


def _layer_scales(task: Task, options: Optimizer) -> dict[int, float]:
    """{id of a parameter: factor on its rate} by `options.layer_decay`, from timm's groups; empty without it."""
    decay, least = (options.options.get(key) for key in BY_LAYER)
    if decay is None:
        if least is not None:
            raise ValueError("optimizer.options.layer_decay_min_scale would do nothing without layer_decay")
        return {}
    for key, value in zip(BY_LAYER, (decay, 0.0 if least is None else least), strict=True):
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"optimizer.options.{key}={value!r} must be a number in 0..1")
    found = param_groups_layer_decay(task.network, layer_decay=decay, min_scale=least or 0.0)
    scales = {id(p): float(group["lr_scale"]) for group in found for p in group["params"]}
    if len(set(scales.values())) == 1 and decay != 1:
        raise ValueError(
            f"optimizer.options.layer_decay would do nothing: {type(task.network).__name__} is a single layer to timm"
        )
    return scales


def _groups(task: Task, options: Optimizer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    scales = _layer_scales(task, options)
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
        for name, (p, d) in parts.items():
            for scale in sorted({scales.get(id(one), 1.0) for one in p}):
                factor = group.lr_factor * scale
                groups.append(
                    {
                        "params": [one for one in p if scales.get(id(one), 1.0) == scale],
                        "name": f"{name}, times {scale:.4g}" if scales else name,
                        "weight_decay": d,
                        "lr": options.lr * factor,
                        "lr_factor": factor,
                    }
                )
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
