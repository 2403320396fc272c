"""A 1 x 1 convolution of any stride and its norm in the training form, against the plain layers in float64."""

import copy

import pytest
import torch
from fused_cases import assert_gradients_where_wanted, assert_near, lively, maps, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elastic_cnn.fast import optimize_for_training, training_ops, training_projection
from elastic_cnn.fast.training import why_plain

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")


def projection(stride: int, relu: bool) -> nn.Sequential:
    layers = [nn.Conv2d(5, 9, 1, stride, bias=False), nn.BatchNorm2d(9), *([nn.ReLU()] if relu else [])]
    return nn.Sequential(*layers)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([1, 2, 3]), st.booleans(), st.integers(1, 3), st.integers(7, 16), st.integers(7, 16))
def test_output_gradients_and_statistics(stride, relu, batch, height, width):
    """The two forms differ by the order of sums alone: 1e-9."""
    plain = lively(projection(stride, relu)).double()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    assert training_projection.is_projection(fused[0], fused[1])
    x = maps(plain, batch, height, width, torch.float64)
    assert_near(outcome(plain, x), outcome(fused, x), 1e-9)
    assert why_plain(fused) == {}


@pytest.mark.parametrize("frozen", ["0.weight", "1.weight", "input"])
def test_parts_that_need_no_gradient(frozen):
    plain = lively(projection(2, True)).double()
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name != frozen)
    assert_gradients_where_wanted(plain, 7, 8, frozen != "input", 1e-9)


def test_gradcheck():
    layers = lively(projection(2, True)).double()
    optimize_for_training(layers)
    x = maps(layers, 2, 5, 7, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layers, (x,), fast_mode=True, atol=1e-6)


def test_other_convolutions_are_left_to_the_library():
    norm = nn.BatchNorm2d(8)
    for conv in (
        nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2, bias=False),
        nn.Conv2d(8, 8, 1, (1, 2), bias=False), nn.Conv2d(8, 8, 1, padding=1, bias=False), nn.ReLU(),
    ):  # fmt: skip
        assert not training_projection.is_projection(conv, norm)
    assert not training_projection.is_projection(nn.Conv2d(8, 8, 1, bias=False), nn.ReLU())
