"""DenseNet's native trunk against torch's own layers in float64, over sizes and widths of every kind; on this
processor's instruction set, and on AVX2 in a process of its own (`test_dense_on_avx2_too`), with one to three threads.

Tolerance: as for the residual blocks, 1e-5 of the result's largest value."""

import native_calls as calls
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_dense_reference import random_layer, random_transition, random_trunk, run_steps
from on_avx2 import pytest_on_avx2

from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.kernels.packing_dense import INPUT, LAYER, NORM, TRANSITION, pack_dense

pytestmark = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {load().reason}")

TOLERANCE = 1e-5
sizes = st.integers(1, 34)
threads = st.sampled_from((1, 2, 3))
widths = st.tuples(st.integers(1, 50), st.integers(1, 70), st.sampled_from((0, 0, 1, 8, 33, 64)))


@pytest.fixture(autouse=True, scope="module")
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(steps, x):
    packed = pack_dense(steps)
    return calls.dense_blocks(x, packed.weights, packed.plan)


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max() / wanted.abs().max().clamp(min=1) < TOLERANCE


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 70),
    layers=st.lists(widths, min_size=1, max_size=4),
    batch=st.integers(1, 4),
    height=sizes,
    width=sizes,
    normed=st.booleans(),
    count=threads,
    seed=st.integers(0, 1000),
)
def test_a_block_of_any_width_and_size(channels, layers, batch, height, width, normed, count, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(count)
    steps = random_trunk(channels, layers, normed=normed)
    x = torch.randn(batch, channels, height, width, dtype=torch.float64)
    assert_close(call(steps, x.float()), run_steps(steps, x))


@settings(max_examples=10, deadline=None)
@given(
    first=st.lists(widths, max_size=3),
    second=st.lists(widths, max_size=3),
    out=st.integers(1, 70),
    batch=st.integers(1, 3),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    count=threads,
    seed=st.integers(0, 1000),
)
def test_transitions_pool_whole_windows_and_join_blocks(first, second, out, batch, height, width, count, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(count)
    steps = random_trunk(20, first, out) + random_trunk(out, second, 9) + random_trunk(9, [(4, 8, 8)], normed=True)
    x = torch.randn(batch, 20, height, width, dtype=torch.float64)
    assert_close(call(steps, x.float()), run_steps(steps, x))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("channels", "layers", "size"),
    [
        (64, [(32, 64, 64), (32, 64, 64)], (56, 56)),  # a thread's rows begin at an even one
        (128, [(32, 64, 64), (32, 64, 64)], (14, 14)),  # windows whose rows are two threads'
        (256, [(32, 128, 0), (32, 128, 0)], (7, 7)),  # threads divide conv1's panels
        (256, [(32, 64, 64), (32, 128, 0), (32, 64, 64)], (7, 7)),
        (96, [(48, 96, 96), (48, 192, 0)], (9, 5)),  # DenseNet161's growth: half a panel is left over
    ],
)
def test_shapes_of_real_dense_blocks(channels, layers, size, count):
    torch.set_num_threads(count)
    steps = random_trunk(channels, layers, normed=True)
    x = torch.randn(1, channels, *size, dtype=torch.float64)
    first = call(steps, x.float())
    assert_close(first, run_steps(steps, x))
    assert torch.equal(first, call(steps, x.float()))  # nothing of a call remains


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_images_are_computed_alike_in_any_batch_and_by_any_number_of_threads(batch):
    """Each sum is taken in one order, whoever takes it; batches that threads divide, and what is left over."""
    steps = random_trunk(32, [(16, 40, 24), (16, 64, 0)], 24)
    x = torch.randn(batch, 32, 15, 14)
    torch.set_num_threads(1)
    wanted = torch.cat([call(steps, image[None]) for image in x])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(call(steps, x), wanted)


def test_any_memory_layout_and_an_empty_batch_are_taken():
    steps = random_trunk(8, [(4, 8, 8)], 6)
    x = torch.randn(2, 9, 14, 20)[:, 1:, ::2, ::2]  # strides of no known format
    wanted = call(steps, x.contiguous())
    assert torch.equal(call(steps, x), wanted)
    assert torch.equal(call(steps, x.contiguous(memory_format=torch.channels_last)), wanted)
    assert wanted.is_contiguous(memory_format=torch.channels_last)
    assert call(steps, x[:0]).shape == (0, 6, 3, 5)


def test_what_is_not_a_number_stays_visible():
    x = torch.zeros(1, 20, 6, 6)
    x[0, 17, 1, 2] = float("nan")
    new = call([random_layer(20, 4, 8, 8)], x)[:, 20:]
    assert new[0, :, 1, 2].isnan().all()
    assert not new[0, :, 5, 5].isnan().any()


@pytest.mark.parametrize("position", [5, 40, 70, 2113, 2200, -40])  # scale, shift, w1, b1, w2, low w2
def test_the_tolerance_tells_a_wrong_weight(position):
    steps = random_trunk(32, [(32, 40, 24)])
    packed = pack_dense(steps)
    packed.weights[position] += 0.01
    x = torch.randn(1, 32, 14, 14, dtype=torch.float64)
    with pytest.raises(AssertionError):
        assert_close(calls.dense_blocks(x.float(), packed.weights, packed.plan), run_steps(steps, x))


@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_finds_the_operator_sound(channels_last):
    """torch's own checks: the schema tells the truth, and the shape without computing is the computed one."""
    packed = pack_dense(random_trunk(8, [(4, 8, 8), (4, 8, 0)], 6) + random_trunk(6, [(4, 8, 0)], normed=True))
    x = torch.randn(2, 8, 9, 7)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    operator = torch.ops.elastic_cnn.dense_blocks.default
    checks = ("test_schema", "test_faketensor")
    found = torch.library.opcheck(operator, (x, packed.weights, packed.plan), test_utils=checks)
    assert set(found.values()) == {"SUCCESS"}


def test_a_profile_has_a_row_for_each_row_of_the_plan():
    packed = pack_dense(random_trunk(8, [(4, 8, 8), (4, 8, 0)], 6) + random_trunk(6, [(4, 8, 0)], normed=True))
    seconds = torch.ops.elastic_cnn.dense_blocks_profile(torch.randn(1, 8, 20, 20), packed.weights, packed.plan)
    kinds = packed.plan[::4]
    assert kinds == [INPUT, LAYER, LAYER, TRANSITION, LAYER, NORM]
    assert len(seconds) == len(kinds)
    assert (seconds.sum(1) > 0).all()
    assert (seconds[[1, 2, 4], 4] > 0).all()  # conv2 in layers alone
    assert (seconds[[0, 3, 5], 4] == 0).all()
    assert (seconds[:, 3] > 0).tolist() == [False, True, False, False, False, False]  # of a low resolution in one


START = [INPUT, 8, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.randn(1, 8, 6, 6).half()}, "of dtype Float"),
        ({"x": torch.randn(8, 6, 6)}, "map"),
        ({"x": torch.randn(1, 9, 6, 6)}, "takes 8 channels"),
        ({"x": torch.empty(1, 8, 0, 6)}, "rows"),
        ({"x": torch.randn(1, 8, 1, 6)}, "cannot be halved"),
        ({"weights": torch.randn(10)}, "packed weights"),
        ({"weights": torch.randn(10).double()}, "of dtype Float"),
        ({"plan": []}, "4 numbers"),
        ({"plan": [1, 2, 3]}, "4 numbers"),
        ({"plan": [LAYER, 4, 8, 0]}, "begins with its input"),
        ({"plan": [INPUT, 0, 0, 0]}, "input channels"),
        ({"plan": [*START, LAYER, 0, 8, 0]}, "new channels"),
        ({"plan": [*START, LAYER, 4, 0, 0]}, "inner channels"),
        ({"plan": [*START, LAYER, 4, 8, -1]}, "low inner channels"),
        ({"plan": [*START, LAYER, 4, 1 << 40, 0]}, "inner channels"),
        ({"plan": [*START, *[LAYER, 1 << 16, 8, 0]]}, "channels"),
        ({"plan": [*START, TRANSITION, 0, 0, 0]}, "transition"),
        ({"plan": [*START, NORM, 0, 0, 0, LAYER, 4, 8, 0]}, "ends it"),
        ({"plan": [*START, 7, 4, 8, 0]}, "got 7"),
        ({"plan": [*START, INPUT, 8, 0, 0]}, "got 0"),
        ({"plan": [*START, LAYER, 4, 8, 0]}, "packed weights"),
        ({"plan": START + 17 * [TRANSITION, 8, 0, 0]}, "cannot be halved"),
    ],
)
def test_dense_blocks_refuse_what_does_not_fit(changes, message):
    packed = pack_dense([random_layer(8, 4, 8, 8), random_transition(12, 6)])
    given = {"x": torch.randn(1, 8, 6, 6), "weights": packed.weights, "plan": packed.plan, **changes}
    with pytest.raises((ValueError, TypeError), match=message):
        calls.dense_blocks(**given)


@pytest.mark.skipif(ops.ready() and torch.ops.elastic_cnn.kernel_level() == "avx2", reason="this is AVX2 already")
def test_dense_on_avx2_too():
    """What computes in this file again, in a process whose kernels are told to use AVX2."""
    assert " passed" in pytest_on_avx2("-k", "block or shapes or join", __file__)
