"""Blocks whose 3 x 3 convolutions the native passes for narrow groups compute, in the training form."""

import copy

import pytest
import torch
from fused_cases import assert_gradients_where_wanted, assert_near, elastic, lively, maps, outcome, residual
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elastic_cnn.fast import optimize_for_training, training_function, training_ops
from elastic_cnn.fast.training import why_plain

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")
BLOCKS = {
    "bottleneck": lambda: residual(width=64, groups=16),
    "strided": lambda: residual(width=64, groups=16, stride=2, grow=2),
    "elastic": lambda: elastic(residual(width=128, groups=32, grow=4)),
}


@settings(deadline=None, max_examples=9)
@given(st.sampled_from(sorted(BLOCKS)), st.integers(1, 2), st.integers(6, 11), st.integers(6, 11))
def test_blocks_in_float64(name, batch, height, width):
    """The two forms differ by the order of sums alone: 1e-9."""
    plain = lively(BLOCKS[name]()).double()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    assert uses_the_passes(fused)
    x = maps(plain, batch, height, width, torch.float64)
    assert_near(outcome(plain, x), outcome(fused, x), 1e-9)
    assert why_plain(fused) == {}


def uses_the_passes(block: nn.Module) -> bool:
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return all(training_function._is_grouped(conv, conv.weight) for conv in convolutions)


@pytest.mark.parametrize("frozen", ["conv1", "conv2", "bn1", "conv1 bn1", "input"])
def test_parts_that_need_no_gradient(frozen):
    plain = lively(BLOCKS["bottleneck"]()).double()
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen.split()))
    assert_gradients_where_wanted(plain, 5, 6, frozen != "input", 1e-8)


def test_gradcheck():
    block = lively(residual(width=64, groups=16, grow=4)).double()
    optimize_for_training(block)
    x = maps(block, 1, 3, 5, torch.float64).requires_grad_()
    assert uses_the_passes(block)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True, atol=1e-6)


def test_results_repeat_to_the_bit():
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    x, twin = maps(block, 2, 9, 11), copy.deepcopy(block)
    one, two = outcome(block, x), outcome(twin, x)
    assert uses_the_passes(block)
    assert all(torch.equal(one[name], two[name]) for name in one)
