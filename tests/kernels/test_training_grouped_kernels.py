"""The training form's grouped 3 x 3 convolutions, with the norms around them, against torch's autograd."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from on_avx2 import pytest_on_avx2
from torch import Tensor

from elastic_cnn.fast import training_ops

pytestmark = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")
OPS = torch.ops.elastic_cnn
EXACT = {torch.float64: 1e-9, torch.float32: 1e-4}  # sums of at most 9 * 32 products, or of 500 pixels, each of size 1


def of_size(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*size, dtype=dtype).contiguous(memory_format=torch.channels_last)


def norm(channels: int, dtype: torch.dtype) -> list[Tensor]:
    """Weight, bias, running mean and variance."""
    values = [torch.rand(channels) + 0.5, torch.randn(channels), torch.zeros(channels), torch.ones(channels)]
    return [value.to(dtype) for value in values]


def assert_near(own: Tensor, expected: Tensor) -> None:
    off = float((own - expected.detach()).abs().max())
    assert off <= EXACT[own.dtype] * max(1.0, float(expected.detach().abs().max()))


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([4, 8, 16, 32]), st.sampled_from([1, 2]), st.integers(1, 2), st.integers(1, 17), st.integers(1, 17),
    st.sampled_from([1, 2]), st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_convolution_and_gradients(of_group, slabs, batch, height, width, stride, dtype):
    """Any size, odd or even, one slab of groups or two: output, statistics and every gradient."""
    if batch * ((height + 1) // 2) * ((width + 1) // 2) < 4:
        return
    channels, groups = 16 * slabs * of_group, 16 * slabs
    x = of_size(batch, channels, height, width, dtype=dtype)
    weight = (torch.randn(channels, of_group, 3, 3) / (9 * of_group) ** 0.5).to(dtype)
    before, after, twin = norm(channels, dtype), norm(channels, dtype), norm(channels, dtype)
    leaves = [t.clone().requires_grad_() for t in (x, weight, before[0], before[1])]
    a = F.batch_norm(leaves[0], None, None, leaves[2], leaves[3], True, 0.1, 1e-5).relu()
    z = F.conv2d(a, leaves[1], None, stride, 1, 1, groups)
    dz = of_size(*z.shape, dtype=dtype)
    z.backward(dz)
    statistics = OPS.train_statistics(x, *before, 0.1, 1e-5)
    own, own_statistics = OPS.train_grouped(x, statistics, weight, stride, *after, 0.3, 1e-5)
    assert_near(own, z)
    plain = z.detach().contiguous(memory_format=torch.channels_last)
    assert_near(own_statistics[0], OPS.train_statistics(plain, *after[:2], *twin[2:], 0.3, 1e-5)[0])
    assert_near(after[2], twin[2])
    assert_near(after[3], twin[3])
    assert_near(OPS.train_grouped_weight_gradient(dz, x, statistics, weight, stride), leaves[1].grad)
    if dtype is torch.float64:  # a ReLU at zero may fall either way in float32
        found = OPS.train_grouped_norm_gradient(dz, weight, x, statistics, stride)
        for gradient, leaf in zip(found, (leaves[0], leaves[2], leaves[3]), strict=True):
            assert_near(gradient, leaf.grad)


def test_more_rows_than_one_block_and_more_pixels_than_one_tile():
    """Float32 at a size of several blocks of rows: against float64, to 1e-4 of the largest gradient."""
    x, weight = of_size(1, 64, 75, 61, dtype=torch.float32), torch.randn(64, 4, 3, 3) / 6
    before = norm(64, torch.float32)
    statistics = OPS.train_statistics(x, *before, 0.1, 1e-5)
    leaves = [x.double().requires_grad_(), weight.double().requires_grad_()]
    a = F.batch_norm(leaves[0], None, None, before[0].double(), before[1].double(), True, 0.1, 1e-5).relu()
    z = F.conv2d(a, leaves[1], None, 1, 1, 1, 16)
    dz = of_size(*z.shape, dtype=torch.float32)
    z.backward(dz.double())
    own = OPS.train_grouped(x, statistics, weight, 1, *norm(64, torch.float32), 0.1, 1e-5)[0]
    torch.testing.assert_close(own.double(), z.detach(), rtol=1e-4, atol=1e-4)
    dweight = OPS.train_grouped_weight_gradient(dz, x, statistics, weight, 1)
    torch.testing.assert_close(dweight.double(), leaves[1].grad, rtol=1e-4, atol=5e-3)
    dx = OPS.train_grouped_norm_gradient(dz, weight, x, statistics, 1)[0].double()
    assert float((dx - leaves[0].grad).norm()) <= 1e-3 * float(leaves[0].grad.norm())


def test_what_has_no_pass_is_refused():
    assert OPS.train_has_grouped(64, 16, torch.float32)
    for channels, groups in ((32, 16), (48, 16), (1024, 16), (20, 5), (65, 16)):
        assert not OPS.train_has_grouped(channels, groups, torch.float32)
    x, weight = of_size(1, 64, 4, 4, dtype=torch.float32), torch.randn(64, 4, 3, 3)
    statistics = OPS.train_statistics(x, *norm(64, torch.float32), 0.1, 1e-5)
    with pytest.raises(ValueError, match="stride of 3"):
        OPS.train_grouped_norm_gradient(x, weight, x, statistics, 3)
    with pytest.raises(ValueError, match="gradient must have the size"):
        OPS.train_grouped_weight_gradient(x, x, statistics, weight, 2)
    with pytest.raises(ValueError, match=r"weight must have the size \[64, 4, 3, 3\]"):
        OPS.train_grouped_norm_gradient(x, weight[..., :1], x, statistics, 1)


def test_fake_forms_have_the_shapes_of_the_real_ones():
    x, weight = of_size(2, 64, 5, 7, dtype=torch.float64), torch.randn(64, 4, 3, 3).double()
    statistics = OPS.train_statistics(x, *norm(64, torch.float64), 0.1, 1e-5)
    dz = of_size(2, 64, 3, 4, dtype=torch.float64)
    calls = [
        (OPS.train_grouped, (x, statistics, weight, 2, *norm(64, torch.float64), 0.1, 1e-5)),
        (OPS.train_grouped_norm_gradient, (dz, weight, x, statistics, 2)),
        (OPS.train_grouped_weight_gradient, (dz, x, statistics, weight, 2)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_the_narrower_instruction_set():
    """AVX2, in a process of its own: this file's first test there."""
    assert " passed" in pytest_on_avx2(f"{__file__}::test_convolution_and_gradients")
