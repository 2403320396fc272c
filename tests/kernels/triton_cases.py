"""Cases of `test_triton_kernels.py`, which runs them in a process of their own: Triton decides when it is first
imported whether its kernels are interpreted. The oracle is plain PyTorch and its autograd."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from elastic_cnn.kernels.triton import area_pool, elastic_tail, elastic_tail_train, serves

FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
SIZES = [(2, 5, 6, 4), (1, 3, 7, 5), (1, 70, 2, 31), (1, 4, 1, 1), (1, 2, 2, 1)]  # the third fills several tiles
# float64: sums in another order; bfloat16 and float16: one rounding (2^-8, 2^-11 relative) of the result
TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}


def maps(size, dtype=torch.float64, layout="NCHW", grad=False):
    """high, low and shortcut of one size, the same every time."""
    n, c, height, width = size
    generator = torch.Generator().manual_seed(3)

    def one(h, w):
        x = torch.randn(n, c, h, w, generator=generator, dtype=torch.float64).to(dtype)
        return x.contiguous(memory_format=FORMATS[layout]).requires_grad_(grad)

    return one(height, width), one(-(-height // 2), -(-width // 2)), one(height, width)


def channels(c, dtype=torch.float64, grad=False):
    generator = torch.Generator().manual_seed(4)
    scale = (torch.rand(c, generator=generator, dtype=torch.float64) + 0.5).to(dtype)
    return scale.requires_grad_(grad), torch.randn(c, generator=generator, dtype=torch.float64).to(
        dtype
    ).requires_grad_(grad)


def plain_sum(high, low):
    up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
    return high + up[..., : high.shape[-2], : high.shape[-1]]


def plain_pool(x):
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)


def plain_tail(high, low, scale=None, bias=None, shortcut=None, relu=True):
    y = plain_sum(high, low)
    y = y if scale is None else y * scale.view(-1, 1, 1)
    y = y if bias is None else y + bias.view(-1, 1, 1)
    y = y if shortcut is None else y + shortcut
    y = F.relu(y) if relu else y
    return y, plain_pool(y)


def check(actual, expected, dtype=torch.float64):
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        torch.testing.assert_close(a.to(e.dtype), e, **TOLERANCE[dtype])


def test_the_kernels_serve_here():
    assert serves(torch.zeros(1, 1, 1, 1))
    assert not serves(torch.zeros(1, 1, 1, 1, dtype=torch.int64))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tail_of_any_size(size, layout):
    high, low, shortcut = maps(size, layout=layout)
    scale, bias = channels(size[1])
    out, pooled = elastic_tail(high, low, scale, bias, shortcut, pool=True)
    check((out, pooled), plain_tail(high, low, scale, bias, shortcut))
    assert out.is_contiguous(memory_format=FORMATS[layout])
    assert pooled.is_contiguous(memory_format=FORMATS[layout])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_tail_of_every_dtype(dtype):
    """Sums are float32, or better: compared with the plain form in float64 on the same rounded inputs."""
    high, low, shortcut = maps((2, 6, 5, 6), dtype, "channels_last")
    scale, bias = channels(6, torch.float32)
    out, pooled = elastic_tail(high, low, scale, bias, shortcut, pool=True)
    assert out.dtype == pooled.dtype == dtype
    expected = plain_tail(*(t.double() for t in (high, low, scale, bias, shortcut)))
    check((out, pooled), expected, dtype)


def test_tail_without_its_optional_parts():
    high, low, shortcut = maps((1, 3, 5, 4))
    scale, bias = channels(3)
    check(elastic_tail(high, low, relu=False)[:1], [plain_sum(high, low)])
    check(elastic_tail(high, low)[:1], [F.relu(plain_sum(high, low))])
    check(elastic_tail(high, low, bias=bias, shortcut=shortcut)[:1], plain_tail(high, low, None, bias, shortcut)[:1])
    check(elastic_tail(high, low, scale, relu=False)[:1], plain_tail(high, low, scale, relu=False)[:1])
    assert elastic_tail(high, low)[1] is None


def test_tail_takes_maps_with_gaps_and_of_another_layout():
    high, low, shortcut = maps((2, 3, 6, 5), layout="channels_last")
    expected = plain_tail(high, low, shortcut=shortcut)
    wide = torch.zeros(2, 3, 6, 9, dtype=torch.float64)
    wide[..., :5] = high
    check(elastic_tail(wide[..., :5], low.contiguous(), shortcut=shortcut, pool=True), expected)
    check(elastic_tail(high, low.contiguous(), shortcut=shortcut.contiguous(), pool=True), expected)


def test_a_wider_shortcut_widens_the_output():
    high, low, shortcut = maps((1, 2, 4, 4), torch.bfloat16)
    out, _ = elastic_tail(high, low, shortcut=shortcut.float())
    assert out.dtype == torch.float32


def test_not_a_number_stays():
    high, low, _ = maps((1, 1, 4, 4))
    high[0, 0, 1, 2] = float("nan")
    out, pooled = elastic_tail(high, low, pool=True)
    assert out.isnan().sum() == 1
    assert pooled.isnan().sum() == 1


def test_wrong_shapes_are_refused():
    high, low, shortcut = maps((1, 2, 5, 5))
    with pytest.raises(ValueError, match="low-resolution map"):
        elastic_tail(high, low[..., :2])
    with pytest.raises(ValueError, match="shortcut"):
        elastic_tail(high, low, shortcut=shortcut[..., :4])


def test_no_images():
    high, low, shortcut = maps((0, 2, 5, 5))
    out, pooled = elastic_tail(high, low, shortcut=shortcut, pool=True)
    assert out.shape == (0, 2, 5, 5)
    assert pooled.shape == (0, 2, 3, 3)


def gradients(function, inputs, weigh):
    """Gradients of a weighted sum of the outputs; `weigh`: a weight for `out` and one for the pooled map."""
    out, pooled = function(*inputs)
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros((), dtype=out.dtype)
    for value, weight in zip((out, pooled), weigh, strict=True):
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        total = total + weight * (value * noise).sum() if weight else total
    return torch.autograd.grad(total, [tensor for tensor in inputs if tensor is not None and tensor.requires_grad])


@pytest.mark.parametrize(
    ("size", "weigh"),
    [(SIZES[0], (1, 2)), (SIZES[1], (1, 0)), (SIZES[1], (0, 1)), (SIZES[1], (1, 2)), (SIZES[2], (1, 2))],
    ids=str,
)
@pytest.mark.parametrize("layout", FORMATS)
def test_gradients_of_the_tail(size, layout, weigh):
    inputs = [*maps(size, layout=layout, grad=True), *channels(size[1], grad=True)]
    order = [inputs[i] for i in (0, 1, 3, 4, 2)]
    ours = gradients(lambda *args: elastic_tail(*args, pool=True), order, weigh)
    check(ours, gradients(plain_tail, order, weigh))


def test_gradients_without_optional_parts():
    high, low, shortcut = maps((1, 3, 5, 4), grad=True)
    _, bias = channels(3, grad=True)
    for order in ([high, low], [high, low, None, bias], [high, low, None, None, shortcut]):
        check(
            gradients(lambda *args: elastic_tail(*args, relu=False, pool=True), order, (1, 1)),
            gradients(lambda *args: plain_tail(*args, relu=False), order, (1, 1)),
        )
    frozen = high.detach()
    check(
        gradients(lambda *args: elastic_tail(*args, pool=True), [frozen, low], (1, 1)),
        gradients(plain_tail, [frozen, low], (1, 1)),
    )


def test_gradcheck():
    high, low, shortcut = maps((1, 2, 3, 2), grad=True)
    scale, bias = channels(2, grad=True)
    assert torch.autograd.gradcheck(
        lambda *args: elastic_tail(*args, relu=False, pool=True), (high, low, scale, bias, shortcut), fast_mode=True
    )


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("size", [(2, 5, 6, 4), (1, 70, 3, 31)], ids=str)
def test_training_with_a_batch_norm(size, layout):
    """Outputs, gradients and running statistics of torch's own batch norm."""
    c = size[1]
    norm = nn.BatchNorm2d(c).double()
    with torch.no_grad():
        norm.weight.copy_(channels(c)[0])
        norm.bias.copy_(channels(c)[1])
    twin = copy.deepcopy(norm)
    high, low, shortcut = maps(size, layout=layout, grad=True)

    def ours(high, low, shortcut, *_):
        return elastic_tail_train(high, low, norm, shortcut, pool=True)

    def plain(high, low, shortcut, *_):
        y = F.relu(twin(plain_sum(high, low)) + shortcut)
        return y, plain_pool(y)

    check(ours(high, low, shortcut), plain(high, low, shortcut))
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name), buffer, rtol=1e-12, atol=1e-12)
    for weigh in ((1, 0), (1, 2)):
        check(
            gradients(ours, (high, low, shortcut, norm.weight, norm.bias), weigh),
            gradients(plain, (high, low, shortcut, twin.weight, twin.bias), weigh),
        )


def test_training_keeps_small_deviations_about_a_large_mean():
    """Mean 1000, deviation 1 in float32: sums of squares would lose the variance. 1e-3: the inputs' own rounding."""
    high, low, shortcut = maps((2, 3, 6, 6), torch.float32)
    norm = nn.BatchNorm2d(3)
    out, _ = elastic_tail_train(high + 1000, low, norm, shortcut)
    expected = F.relu(
        F.batch_norm(plain_sum((high + 1000).double(), low.double()), None, None, training=True) + shortcut
    )
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_over_several_batches(momentum):
    norm = nn.BatchNorm2d(3, momentum=momentum).double()
    twin = copy.deepcopy(norm)
    high, low, _ = maps((2, 3, 4, 5))
    for step in range(3):
        elastic_tail_train(high * (step + 1), low, norm)
        twin(plain_sum(high * (step + 1), low))
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(norm.get_buffer(name), buffer, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pool_and_its_gradient(size, layout):
    x = maps(size, layout=layout, grad=True)[0]
    check([area_pool(x)], [plain_pool(x)])
    noise = torch.randn_like(area_pool(x))
    check(
        torch.autograd.grad((area_pool(x) * noise).sum(), [x]), torch.autograd.grad((plain_pool(x) * noise).sum(), [x])
    )


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's check
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", ["triton_tail", "triton_tail_train", "triton_pool"])
def test_operators_are_well_behaved(name, layout):
    """torch's own checks: schema, fake implementation (shapes, strides, dtypes), autograd, all of them in a graph."""
    high, low, shortcut = maps((2, 3, 5, 4), torch.float32, layout, grad=True)
    scale, bias = channels(3, torch.float32, grad=True)
    arguments = {
        "triton_tail": (high, low, scale, bias, shortcut, True, True),
        "triton_tail_train": (high, low, scale, bias, shortcut, 1e-5, True, True),
        "triton_pool": (high,),
    }[name]
    operator = getattr(torch.ops.elastic_cnn, name).default
    results = torch.library.opcheck(operator, arguments)
    assert set(results.values()) == {"SUCCESS"}
