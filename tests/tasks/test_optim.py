"""Schedules against torch's own schedulers; parameter groups; optimizers by name."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.optim import lr_factor, make_optimizer, set_learning_rate
from elastic_cnn.tasks.recipe import Optimizer, Schedule
from elastic_cnn.tasks.task import ParameterGroup

PER_EPOCH, EPOCHS = 5, 9
STEPS = PER_EPOCH * EPOCHS


def rates_of(scheduler_class, every: int = 1, **arguments) -> list[float]:
    """What a scheduler of torch gives, advanced every so many steps, from rate 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_class(optimizer, **arguments)
    rates = []
    for step in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "oracle"),
    [
        (Schedule("constant"), [1.0] * STEPS),
        (
            Schedule("step", (3, 6), 0.1),
            rates_of(lr_scheduler.MultiStepLR, every=PER_EPOCH, milestones=[3, 6], gamma=0.1),
        ),
        (Schedule("cosine", final=0.1), rates_of(lr_scheduler.CosineAnnealingLR, T_max=STEPS, eta_min=0.1)),
        (Schedule("poly", power=0.9), rates_of(lr_scheduler.PolynomialLR, total_iters=STEPS, power=0.9)),
    ],
)
def test_schedules_equal_those_of_torch(schedule, oracle):
    factors = [lr_factor(schedule, step, PER_EPOCH, EPOCHS) for step in range(STEPS)]
    assert factors == pytest.approx(oracle, rel=1e-9)  # torch multiplies up step by step in float64


def test_warm_up_rises_evenly_and_then_leaves_the_schedule_alone():
    schedule = Schedule("cosine", warmup_epochs=2)
    factors = [lr_factor(schedule, step, PER_EPOCH, EPOCHS) for step in range(STEPS)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 < factors[-1] < 0.01
    assert lr_factor(Schedule("constant", warmup_epochs=0.4), 0, PER_EPOCH, EPOCHS) == pytest.approx(0.5)


class TwoPart(Classification):
    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("backbone", self.network[0].named_parameters(), lr_factor=0.1),
            ParameterGroup("head", self.network[1].named_parameters(), decay_factor=0.5),
        ]


def make_task(kind: type[Classification] = Classification) -> Classification:
    return kind(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 4)


def test_norms_and_biases_are_spared_on_request():
    task = make_task()
    (one,) = make_optimizer(task, Optimizer(weight_decay=0.5)).param_groups
    assert (one["weight_decay"], len(one["params"])) == (0.5, 4)
    weights, vectors = make_optimizer(task, Optimizer(weight_decay=0.5, decay_norm_and_bias=False)).param_groups
    assert [p.ndim for p in weights["params"]] == [4]
    assert (weights["weight_decay"], vectors["weight_decay"]) == (0.5, 0.0)
    assert len(vectors["params"]) == 3


def test_groups_keep_their_factors():
    optimizer = make_optimizer(make_task(TwoPart), Optimizer(lr=1.0, weight_decay=0.4))
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.4, 0.2])


def test_frozen_parameters_are_left_out_and_repeated_ones_refused():
    task = make_task()
    task.network[0].requires_grad_(False)
    (group,) = make_optimizer(task, Optimizer()).param_groups
    assert len(group["params"]) == 2
    task.network.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        make_optimizer(task, Optimizer())
    twice = make_task(TwoPart)
    twice.network[1] = twice.network[0]
    with pytest.raises(ValueError, match="in two groups"):
        make_optimizer(twice, Optimizer())


def test_sgd_is_plain_and_nesterov_is_not():
    task = make_task()
    kinds = {name: make_optimizer(task, Optimizer(name, momentum=0.8)) for name in ("sgd", "nesterov")}
    assert [kind.defaults["nesterov"] for kind in kinds.values()] == [False, True]
    assert all(isinstance(kind, torch.optim.SGD) and kind.defaults["momentum"] == 0.8 for kind in kinds.values())
    adam = make_optimizer(task, Optimizer("adamw", options={"betas": [0.8, 0.9]}))
    assert isinstance(adam, torch.optim.AdamW)
    assert tuple(adam.defaults["betas"]) == (0.8, 0.9)


def test_wrong_optimizers_are_explained():
    with pytest.raises(ValueError, match="unknown optimizer 'adamv'; did you mean"):
        make_optimizer(make_task(), Optimizer("adamv"))
    with pytest.raises(ValueError, match="sgd does not take"):
        make_optimizer(make_task(), Optimizer(options={"tempo": 3}))
