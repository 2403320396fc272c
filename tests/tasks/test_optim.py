"""Schedules against torch's own schedulers; parameter groups; optimizers by name."""

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim import lr_scheduler

from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.optim import lr_factor, make_optimizer, set_learning_rate
from elastic_cnn.tasks.recipe import Optimizer, Schedule
from elastic_cnn.tasks.task import ParameterGroup
from elastic_cnn.zoo.factory import create_model

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


def classifier(name: str, **kwargs) -> Classification:
    return Classification(create_model(name, num_classes=3, **kwargs), 3)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("resnet10t", {"stem_width": 8, "channels": [8, 8, 16, 16]}),
        ("resnext_small_elastic", {"channels": [8, 8, 8, 8]}),
        ("regnetx_002", {}),
        ("convnext_atto", {}),
    ],
)
@pytest.mark.parametrize("least", [None, 0.2])
def test_layers_decay_as_timm_groups_them(name, kwargs, least):
    """Every parameter has the rate and the weight decay that timm's own optimizer over the network gives it."""
    task = classifier(name, **kwargs)
    more = {} if least is None else {"layer_decay_min_scale": least}
    options = Optimizer("adamw", 0.5, weight_decay=0.1, decay_norm_and_bias=False, options={"layer_decay": 0.7, **more})
    optimizer = make_optimizer(task, options)
    set_learning_rate(optimizer, 0.25)  # at half of the schedule
    theirs = timm.optim.create_optimizer_v2(
        task.network, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.7, **more
    )
    names = {id(p): name for name, p in task.named_parameters()}
    expected = {
        names[id(p)]: (group["lr_scale"] * 0.25, group["weight_decay"])
        for group in theirs.param_groups
        for p in group["params"]
    }
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert found.keys() == expected.keys() == set(names.values())
    for key, (rate, decay) in expected.items():
        assert found[key] == (pytest.approx(rate), decay)
    assert len({rate for rate, _ in found.values()}) > 3


class Layered(nn.Sequential):
    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        return {"first": "^0", "second": "^1"}


def test_layers_decay_within_a_tasks_own_groups():
    network = Layered(nn.Linear(2, 2), nn.Linear(2, 2))
    first, second = make_optimizer(TwoPart(network, 2), Optimizer(options={"layer_decay": 0.5}, lr=1.0)).param_groups
    assert first["lr_factor"] / second["lr_factor"] == pytest.approx(0.1 * 0.5)
    assert second["weight_decay"] == Optimizer.weight_decay / 2


def test_a_network_of_one_layer_has_none_to_tell_apart():
    with pytest.raises(ValueError, match="layer_decay would do nothing: Sequential is a single layer to timm"):
        make_optimizer(make_task(), Optimizer(options={"layer_decay": 0.5}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Optimizer(options={"layer_decay": 1.5}), "layer_decay=1.5 must be a number in 0..1"),
        (Optimizer(options={"layer_decay": "x"}), "layer_decay='x' must be a number"),
        (Optimizer(options={"layer_decay": 0.5, "layer_decay_min_scale": -1}), "layer_decay_min_scale=-1 must be"),
        (
            Optimizer(options={"layer_decay_min_scale": 0.1}),
            "layer_decay_min_scale would do nothing without",
        ),
        (Optimizer(options={"layer_decay_no_opt_scale": 0.1}), "layer_decay_no_opt_scale would do nothing"),
        (Optimizer(options={"layer_dekay": 0.1}), "sgd does not take"),
        (Optimizer(options={"lr": 0.1}), "optimizer.options.lr would do nothing: set optimizer.lr"),
        (Optimizer(options={"weight_decay": 0.1}), "optimizer.options.weight_decay would do nothing: set"),
        (Optimizer(options={"filter_bias_and_bn": True}), "would do nothing: set optimizer.decay_norm_and_bias"),
        (Optimizer(options={"betas": [0.9, 0.95]}), "optimizer.options.betas would do nothing: sgd does not take it"),
        (Optimizer(options={"eps": 1e-3}), "optimizer.options.eps would do nothing: sgd does not take it"),
        (Optimizer(options={"fallback_list": ["x"]}), "optimizer.options.fallback_list would do nothing"),
        (Optimizer("adamw", momentum=0.5), "optimizer.momentum=0.5 would do nothing: adamw has no momentum"),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(options, says):
    task = classifier("resnet10t", stem_width=8, channels=[8, 8, 16, 16])
    with pytest.raises(ValueError, match=says):
        make_optimizer(task, options)


@pytest.mark.parametrize(
    "options",
    [
        Optimizer("adamw", options={"betas": [0.9, 0.95], "eps": 1e-6, "foreach": False}),
        Optimizer("sgd", momentum=0.5, options={"nesterov": True}),
        Optimizer("lamb", options={"max_grad_norm": 2.0}),
    ],
)
def test_arguments_that_do_something_are_taken(options):
    optimizer = make_optimizer(classifier("resnet10t", stem_width=8, channels=[8, 8, 16, 16]), options)
    for key, value in options.options.items():
        found = optimizer.param_groups[0][key]
        assert (list(found) if isinstance(found, tuple) else found) == value
