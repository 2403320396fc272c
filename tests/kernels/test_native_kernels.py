"""Every native kernel against torch's own layers in float64, over sizes of every kind; on this processor's instruction
set, and on AVX2 in a process of its own (`test_on_avx2_too`), each with one thread and with two.

Tolerance: sums of a few hundred to a few thousand float32 products of size one carry errors near 1e-6 of the result's
largest value; 1e-5 leaves room for no wrong weight and no wrong pixel."""

import os

import native_calls as calls
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_blocks_reference import blocks, random, random_block, run_block, run_tree
from on_avx2 import pytest_on_avx2

from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.kernels.packing import Tree, pack, pack_stem, pack_tree, use_lanes

pytestmark = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {load().reason}")

TOLERANCE = 1e-5
sizes = st.integers(1, 34)
batches = st.sampled_from((1, 2, 3, 11))  # 11: more than one stack of small maps
threads = st.sampled_from((1, 2))
quick = settings(max_examples=40, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    error = (got - wanted).abs().max() / wanted.abs().max().clamp(min=1)
    assert error < TOLERANCE


@quick
@given(block=blocks(), batch=batches, height=sizes, width=sizes, count=threads)
def test_a_block_of_any_kind_and_size(block, batch, height, width, count):
    torch.set_num_threads(count)
    x = torch.randn(batch, block.high.w1.shape[1], height, width, dtype=torch.float64)
    packed = pack([block])
    assert_close(calls.residual_blocks(x.float(), packed.weights, packed.plan), run_block(block, x))


@settings(max_examples=20, deadline=None)
@given(data=st.data(), batch=batches, height=sizes, width=sizes, count=threads)
def test_a_sequence_equals_its_blocks_one_by_one(data, batch, height, width, count):
    torch.set_num_threads(count)
    sequence, channels = [], 24
    for _ in range(3):
        sequence.append(data.draw(blocks(in_channels=channels)))
        channels = len(sequence[-1].bias)
    x = torch.randn(batch, 24, height, width, dtype=torch.float64)
    wanted = x
    for block in sequence:
        wanted = run_block(block, wanted)
    packed = pack(sequence)
    assert_close(calls.residual_blocks(x.float(), packed.weights, packed.plan), wanted)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), batch=batches, height=sizes, width=sizes, count=threads)
def test_a_tree_of_any_kind_and_size(data, batch, height, width, count):
    torch.set_num_threads(count)
    first = data.draw(blocks())
    out, stride = len(first.bias), first.stride
    children = tuple(data.draw(st.lists(st.sampled_from((1, 8, 32, 40)), max_size=3)))
    wide = 2 * out + sum(children)
    second = random_block(out, out, (4, 3), data.draw(st.sampled_from((None, (2, 5)))))
    tree = Tree((first, second), (random(out, wide, over=wide), random(out)), children, data.draw(st.booleans()))
    x = torch.randn(batch, first.high.w1.shape[1], height, width, dtype=torch.float64)
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    bottom = torch.randn(batch, x.shape[1], *size, dtype=torch.float64)
    given_children = [torch.randn(batch, count, *size, dtype=torch.float64) for count in children]
    packed = pack_tree(tree)
    got = calls.dla_tree(x.float(), bottom.float(), [c.float() for c in given_children], packed.weights, packed.plan)
    assert_close(got, run_tree(tree, x, bottom, given_children))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "high", "low", "size"),
    [
        (64, (32, 4), None, (56, 56)),
        (64, (32, 2), (32, 2), (28, 28)),
        (256, (32, 8), (32, 8), (14, 14)),  # few rows, many channels: threads divide the channels
        (512, (32, 16), None, (7, 7)),
        (64, (1, 64), None, (15, 13)),
    ],
)
def test_shapes_of_real_networks(channels, high, low, size, count):
    torch.set_num_threads(count)
    block = random_block(channels, channels, high, low)
    x = torch.randn(1, channels, *size, dtype=torch.float64)
    packed = pack([block])
    first = calls.residual_blocks(x.float(), packed.weights, packed.plan)
    assert_close(first, run_block(block, x))
    assert torch.equal(
        first, calls.residual_blocks(x.float(), packed.weights, packed.plan)
    )  # nothing of a call remains


def test_groups_take_the_layout_that_wastes_less():
    assert use_lanes(32, 4)
    assert use_lanes(16, 1)
    assert not use_lanes(1, 64)
    assert not use_lanes(2, 32)


@quick
@given(
    batch=batches,
    channels=st.integers(1, 5),
    out=st.integers(1, 70),
    kernel=st.sampled_from((1, 3, 5, 7)),
    stride=st.integers(1, 3),
    height=sizes,
    width=sizes,
    count=threads,
)
def test_stem(batch, channels, out, kernel, stride, height, width, count):
    torch.set_num_threads(count)
    x, weight, bias = (
        torch.randn(batch, channels, height, width),
        torch.randn(out, channels, kernel, kernel),
        torch.randn(out),
    )
    y = F.conv2d(x.double(), weight.double(), bias.double(), stride, kernel // 2)
    assert_close(calls.stem(x, pack_stem(weight), bias, kernel, stride), F.max_pool2d(F.relu(y), 3, 2, 1))


def test_any_memory_layout_is_taken():
    block = random_block(8, 8, (4, 2), (4, 2))
    packed = pack([block])
    x = torch.randn(2, 9, 14, 20)[:, 1:, ::2, ::2]  # strides of no known format
    wanted = calls.residual_blocks(x.contiguous(), packed.weights, packed.plan)
    assert torch.equal(calls.residual_blocks(x, packed.weights, packed.plan), wanted)
    weight, bias = pack_stem(torch.randn(6, 8, 3, 3)), torch.randn(6)
    assert torch.equal(calls.stem(x, weight, bias, 3, 2), calls.stem(x.contiguous(), weight, bias, 3, 2))


def test_an_empty_batch_gives_an_empty_batch():
    packed = pack([random_block(8, 12, (4, 2), stride=2, projection=True)])
    assert calls.residual_blocks(torch.empty(0, 8, 9, 9), packed.weights, packed.plan).shape == (0, 12, 5, 5)


def test_what_is_not_a_number_stays_visible():
    block = random_block(8, 8, (4, 2))
    packed = pack([block])
    assert calls.residual_blocks(torch.full((1, 8, 4, 4), float("nan")), packed.weights, packed.plan).isnan().all()


@pytest.mark.parametrize("count", [1, 2])
def test_tests_catch_a_wrong_weight(count):
    """The tolerance tells a block from the same block with one weight moved by a thousandth."""
    torch.set_num_threads(count)
    block = random_block(64, 64, (32, 2), (32, 2))
    packed = pack([block])
    packed.weights[5] += 1e-3
    x = torch.randn(1, 64, 14, 14, dtype=torch.float64)
    with pytest.raises(AssertionError):
        assert_close(calls.residual_blocks(x.float(), packed.weights, packed.plan), run_block(block, x))


@pytest.mark.skipif(ops.ready() and torch.ops.elastic_cnn.kernel_level() == "avx2", reason="this is AVX2 already")
def test_on_avx2_too():
    """This file again, in a process whose kernels are told to use AVX2."""
    assert "1 skipped" in pytest_on_avx2(__file__)


def test_the_instruction_set_is_the_one_asked_for():
    chosen = torch.ops.elastic_cnn.kernel_level()
    assert chosen == os.environ.get("ELASTIC_KERNELS_ISA", chosen)
    assert chosen in ("avx512", "avx2")
