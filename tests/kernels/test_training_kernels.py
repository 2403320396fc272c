"""The training form's native passes, one by one, against torch, in float64 and at sizes that divide nothing."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn.fast import training_ops

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")
OPS = torch.ops.elastic_cnn
NO_NORM = (None, None, None, None, 0.0, 0.0)
sizes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(2, 19), st.integers(2, 19))


def of_size(n, c, h, w, dtype=torch.float64):
    return torch.randn(n, c, h, w, dtype=dtype).contiguous(memory_format=torch.channels_last)


def low_of(n, c, h, w):
    return of_size(n, c, (h + 1) // 2, (w + 1) // 2)


def up(low, h, w):
    return F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)[..., :h, :w]


def norm(c):
    return torch.rand(c).double() + 0.5, torch.randn(c).double(), torch.zeros(c).double(), torch.ones(c).double()


def statistics_of(z):
    """Statistics of an affine norm with weight 1 and bias 0."""
    c = z.shape[1]
    weight, bias, mean, var = (torch.full((c,), value, dtype=z.dtype) for value in (1.0, 0.0, 0.0, 1.0))
    return OPS.train_statistics(z, weight, bias, mean, var, 0.1, 1e-5)


def active_of(y):
    """`active` of a map: OPS.train_finish(y, ...) with scale 1, shift 0 and no shortcut."""
    plain = torch.zeros(4, y.shape[1], dtype=y.dtype)
    plain[2] = 1
    return OPS.train_finish(y, plain, torch.zeros_like(y))[1]


@settings(deadline=None, max_examples=20)
@given(sizes)
def test_statistics_and_normalize(size):
    z, (weight, bias, mean, var) = of_size(*size) + 3, norm(size[1])
    own_mean, own_var = mean.clone(), var.clone()
    expected = F.batch_norm(z, mean, var, weight, bias, True, 0.3, 1e-3)
    statistics = OPS.train_statistics(z, weight, bias, own_mean, own_var, 0.3, 1e-3)
    torch.testing.assert_close(OPS.train_normalize(z, statistics, False), expected)
    torch.testing.assert_close(OPS.train_normalize(z, statistics, True), expected.relu())
    torch.testing.assert_close((own_mean, own_var), (mean, var))


@settings(deadline=None, max_examples=20)
@given(sizes)
def test_tail(size):
    """Sum, statistics, shortcut, ReLU and back, against autograd."""
    _, c, h, w = size
    z, low, shortcut = of_size(*size), low_of(*size), of_size(*size)
    weight, bias, mean, var = norm(c)
    leaves = [t.clone().requires_grad_() for t in (z, low, shortcut, weight, bias)]
    y = F.batch_norm(leaves[0] + up(leaves[1], h, w), None, None, leaves[3], leaves[4], True, 0.1, 1e-5)
    y = (y + leaves[2]).relu()
    dy = of_size(*size)
    y.backward(dy)
    total = z.clone(memory_format=torch.preserve_format)
    statistics = OPS.train_sum_statistics(total, low, weight, bias, mean, var, 0.1, 1e-5)
    own, active = OPS.train_finish(total, statistics, shortcut)
    torch.testing.assert_close(own, y.detach())
    dz, dlow, dweight, dbias = OPS.train_tail_backward(dy, active, total, statistics, True)
    expected = [leaf.grad for leaf in (leaves[0], leaves[1], leaves[3], leaves[4])]
    torch.testing.assert_close([dz, dlow, dweight, dbias], expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(OPS.train_active_gradient(dy, active), leaves[2].grad)


@settings(deadline=None, max_examples=20)
@given(sizes)
def test_pool_and_input_gradient(size):
    x, dy, dx = of_size(*size).requires_grad_(), of_size(*size), of_size(*size)
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(OPS.train_pool(x.detach()), pooled.detach())
    dpooled = low_of(*size)
    expected = dx + dy * (x > 0) + torch.autograd.grad(pooled, x, dpooled)[0]
    OPS.train_input_gradient(dx, dy, active_of(x.detach()), dpooled)
    torch.testing.assert_close(dx, expected.detach())


@settings(deadline=None, max_examples=30)
@given(sizes, st.sampled_from([1, 5, 31, 32, 33, 64, 300]), st.sampled_from([torch.float64, torch.float32]))
def test_products(size, out, dtype):
    """1 x 1 convolutions of any channels, forward and both gradients, with everything around them.

    float32: sums of up to 300 products of size 1 (or 1,083 pixels), each exact to 6e-8: 1e-4 is ample.
    """
    exact = {"rtol": 1e-4, "atol": 2e-3} if dtype is torch.float32 else {"rtol": 1e-7, "atol": 1e-8}
    n, c, h, w = size
    z, dy = of_size(*size), of_size(n, out, h, w)
    weight = torch.randn(out, c, 1, 1).double()
    gamma, beta, mean, var = norm(out)
    before, low = statistics_of(z), low_of(n, out, h, w)
    leaf = z.clone().requires_grad_()
    scaled = F.batch_norm(leaf, None, None, None, None, True, 0.1, 1e-5)
    a, leaf_weight = scaled.relu(), weight.clone().requires_grad_()
    product = F.conv2d(a, leaf_weight)
    product.backward(dy)
    cast = [t.to(dtype) for t in (z, before, weight, low, gamma, beta, mean, var)]
    own, statistics = OPS.train_pointwise(*cast, 0.1, 1e-5)
    total = product.detach() + up(low, h, w)
    torch.testing.assert_close(own.double(), total, **exact)
    expected = OPS.train_statistics(total.contiguous(memory_format=torch.channels_last), *norm(out), 0.1, 1e-5)
    torch.testing.assert_close(statistics[0].double(), expected[0], **exact)
    variances = [inverse.double() ** -2 for inverse in (statistics[1], expected[1])]  # not the inverses of small ones
    torch.testing.assert_close(*variances, rtol=1e-3, atol=1e-3)
    own_z, own_before, own_weight = cast[:3]
    plain, _ = OPS.train_pointwise(own_z, None, own_weight, None, *NO_NORM)
    torch.testing.assert_close(plain.double(), F.conv2d(z, weight), **exact)
    own_dy = dy.to(dtype)
    own_dweight = OPS.train_pointwise_weight_gradient(own_dy, own_z, own_before)
    torch.testing.assert_close(own_dweight.double(), leaf_weight.grad, **exact)
    dx = OPS.train_pointwise_input_gradient(own_dy, own_weight, None, None, None)
    torch.testing.assert_close(dx.double(), torch.nn.grad.conv2d_input(z.shape, weight, dy), **exact)
    if dtype is torch.float64 and n * h * w > 8:  # a ReLU at zero may fall either way in float32
        dz, _, _ = OPS.train_pointwise_norm_gradient(own_dy, own_weight, own_z, own_before)
        torch.testing.assert_close(dz, leaf.grad, rtol=1e-6, atol=1e-6)
        others = (of_size(*size), active_of(of_size(*size)), low_of(*size))
        with_others = OPS.train_pointwise_input_gradient(own_dy, own_weight, *others)
        OPS.train_input_gradient(dx, *others)
        torch.testing.assert_close(with_others, dx)


@pytest.mark.parametrize(("rows", "channels"), [((1, 64, 64), 260), ((2, 40, 40), 1030)])
def test_products_deeper_and_longer_than_one_block(rows, channels):
    """Depths over one block of 256, more rows than one block, weights too large for a sum a thread."""
    n, h, w = rows
    z, dy = of_size(n, channels, h, w, torch.float32), of_size(n, 1040 if channels > 1000 else 40, h, w, torch.float32)
    weight = torch.randn(dy.shape[1], channels, 1, 1) / channels**0.5
    torch.testing.assert_close(
        OPS.train_pointwise(z, None, weight, None, *NO_NORM)[0], F.conv2d(z, weight), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        OPS.train_pointwise_input_gradient(dy, weight, None, None, None),
        torch.nn.grad.conv2d_input(z.shape, weight, dy), rtol=1e-4, atol=1e-3,
    )  # fmt: skip
    expected = torch.nn.grad.conv2d_weight(z, weight.shape, dy)
    torch.testing.assert_close(OPS.train_pointwise_weight_gradient(dy, z, None), expected, rtol=1e-3, atol=5e-3)


@pytest.mark.skipif(not training_ops.bf16_level(), reason="this processor has no AVX-512 BF16")
@settings(deadline=None, max_examples=25)
@given(sizes, st.sampled_from([1, 5, 31, 33, 64, 300, 1031]), st.sampled_from([1, 2, 17, 40, 1025]))
def test_products_of_bfloat16(size, out, channels):
    """Of maps and weights that are bfloat16 already: sums in float32, rounded once (0.4%) where a map is written."""
    n, _, h, w = size
    z, dy = (of_size(n, c, h, w).bfloat16() for c in (channels, out))
    low = low_of(n, out, h, w).bfloat16()
    weight = (torch.randn(out, channels, 1, 1) / channels**0.5).bfloat16().float()
    exact = {"rtol": 5e-3, "atol": 5e-3}
    own, _ = OPS.train_pointwise(z, None, weight, None, *NO_NORM)
    product = F.conv2d(z.double(), weight.double())
    torch.testing.assert_close(own.double(), product, **exact)
    total = product + up(low.double(), h, w)
    parameters = [t.float() for t in norm(out)]
    own, statistics = OPS.train_pointwise(z, None, weight, low, *parameters, 0.1, 1e-5)
    torch.testing.assert_close(own.double(), total, **exact)
    torch.testing.assert_close(statistics[0].double(), own.double().mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    own = OPS.train_pointwise_weight_gradient(dy, z, None)
    assert own.dtype == torch.float32
    expected = torch.nn.grad.conv2d_weight(z.double(), weight.shape, dy.double())
    torch.testing.assert_close(own.double(), expected, rtol=1e-4, atol=1e-3)
    own = OPS.train_pointwise_input_gradient(dy, weight, None, None, None)
    expected = torch.nn.grad.conv2d_input(z.shape, weight.double(), dy.double())
    torch.testing.assert_close(own.double(), expected, rtol=5e-3, atol=5e-3 * max(1.0, out**0.5 / channels**0.5))


def test_statistics_far_from_zero():
    """A mean of a thousand standard deviations: sums are taken around a pivot, so the variance keeps its digits."""
    z = (torch.randn(4, 3, 30, 30) + 1000).contiguous(memory_format=torch.channels_last)
    mean, inverse = statistics_of(z.float())[:2]
    exact = z.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        inverse.double(), exact.var((0, 2, 3), unbiased=False).add(1e-5).rsqrt(), rtol=1e-4, atol=0
    )


def test_nan_is_handed_on():
    z = torch.full((1, 4, 4, 4), float("nan")).contiguous(memory_format=torch.channels_last)
    statistics = statistics_of(z)
    assert OPS.train_normalize(z, statistics, True).isnan().all()
    assert OPS.train_finish(z, statistics, torch.zeros_like(z))[0].isnan().all()


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="channels_last"):
        OPS.train_pool(torch.randn(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"weight must have the size \[2, 3, 1, 1\]"):
        OPS.train_pointwise(of_size(1, 3, 4, 4), None, torch.randn(2, 5, 1, 1).double(), None, *NO_NORM)
    weight = torch.randn(2, 3, 1, 1).double()
    with pytest.raises(ValueError, match="half the map"):
        OPS.train_pointwise(of_size(1, 3, 4, 4), None, weight, of_size(1, 2, 4, 4), *norm(2), 0.1, 1e-5)


def test_fake_forms_have_the_shapes_of_the_real_ones():
    z, low, weight = of_size(2, 6, 5, 7), low_of(2, 6, 5, 7), torch.randn(4, 6, 1, 1).double()
    statistics, dy = statistics_of(z), of_size(2, 4, 5, 7)
    calls = [
        (OPS.train_statistics, (z, *norm(6), 0.1, 1e-5)),
        (OPS.train_normalize, (z, statistics, True)),
        (OPS.train_batch_norm_backward, (z, z, statistics, True, torch.empty_like(z))),
        (OPS.train_sum_statistics, (z, low, *norm(6), 0.1, 1e-5)),
        (OPS.train_finish, (z, statistics, z)),
        (OPS.train_tail_backward, (z, active_of(z), z, statistics, True)),
        (OPS.train_pool, (z,)),
        (OPS.train_active_gradient, (z, active_of(z))),
        (OPS.train_pointwise, (z, statistics, weight, low_of(2, 4, 5, 7), *norm(4), 0.1, 1e-5)),
        (OPS.train_pointwise_norm_gradient, (dy, weight, z, statistics)),
        (OPS.train_pointwise_input_gradient, (dy, weight, None, None, low)),
        (OPS.train_pointwise_weight_gradient, (dy, z, statistics)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op.default, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("isa", ["avx2"])
def test_the_narrower_instruction_set(isa):
    """The products of AVX2, in a process of their own, are those of torch."""
    code = """
import torch, torch.nn.functional as F
from elastic_cnn.fast import training_ops
assert not training_ops.unavailable()
z, weight, dy = torch.randn(2, 70, 9, 7), torch.randn(45, 70, 1, 1), torch.randn(2, 45, 9, 7)
z, dy = (t.contiguous(memory_format=torch.channels_last) for t in (z, dy))
ops = torch.ops.elastic_cnn
assert ops.train_level() == "avx2"
close = lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
close(ops.train_pointwise(z, None, weight, None, None, None, None, None, 0.0, 0.0)[0], F.conv2d(z, weight))
close(ops.train_pointwise_weight_gradient(dy, z, None), torch.nn.grad.conv2d_weight(z, weight.shape, dy))
close(ops.train_pointwise_input_gradient(dy, weight, None, None, None), torch.nn.grad.conv2d_input(z.shape, weight, dy))
print("equal")
"""
    environment = {**os.environ, "ELASTIC_KERNELS_ISA": isa}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr


def test_an_unknown_instruction_set_is_refused():
    code = "from elastic_cnn.fast import training_ops; training_ops.unavailable(); import torch; "
    code += "torch.ops.elastic_cnn.train_level()"
    environment = {**os.environ, "ELASTIC_KERNELS_ISA": "sse"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ELASTIC_KERNELS_ISA must be avx512 or avx2, got sse" in done.stderr
