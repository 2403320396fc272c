"""The optimized form of single blocks equals the plain one to 1e-5, at every size, batch, dtype and memory format."""

import copy
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from timm.models._efficientnet_blocks import InvertedResidual
from timm.models.convnext import ConvNeXtBlock
from timm.models.densenet import DenseLayer
from timm.models.dla import DlaBasic, DlaBottleneck
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from elastic_cnn import ElasticSpec, optimize_for_inference
from elastic_cnn.fast.forms import (
    FoldedElasticBottleneck,
    FoldedElasticSEBottleneck,
    JoinedElasticBottleneck,
    LowBranch,
    join_last_convolutions,
)
from elastic_cnn.nn import convert_convolution
from elastic_cnn.surgery.rules import find_rule

torch_form = functools.partial(optimize_for_inference, native=False)

WIDTH = 16


def bottleneck(**options) -> nn.Module:
    return Bottleneck(WIDTH, WIDTH // 4, cardinality=4, base_width=32, **options)


BLOCKS = {
    "resnext": bottleneck,
    "resnext, drop path": lambda: bottleneck(drop_path=nn.Dropout(0.5)),
    "se_resnext": lambda: bottleneck(attn_layer="se"),
    "eca_resnext": lambda: bottleneck(attn_layer="eca"),
    "resnet": lambda: Bottleneck(WIDTH, WIDTH // 4),
    "basic": lambda: BasicBlock(WIDTH, WIDTH),
    "basic, attention": lambda: BasicBlock(WIDTH, WIDTH, attn_layer="se"),
    "dla": lambda: DlaBottleneck(WIDTH, WIDTH, cardinality=4, base_width=64),
    "dla basic": lambda: DlaBasic(WIDTH, WIDTH),
    "dense": lambda: DenseLayer(WIDTH, 6, 4),
    "inverted": lambda: InvertedResidual(WIDTH, WIDTH, exp_ratio=4.0),
    "convnext": lambda: ConvNeXtBlock(WIDTH, ls_init_value=0.5),
    "convnext, 1x1": lambda: ConvNeXtBlock(WIDTH, ls_init_value=0.5, conv_mlp=True),
}
SPECS = (
    ElasticSpec(),
    ElasticSpec((1, 2, 4), (0.5, 0.25, 0.25)),
    ElasticSpec(downsample="nearest", upsample="nearest"),
    ElasticSpec(downsample="bilinear"),
    ElasticSpec(downsample="trained", upsample="trained"),
    ElasticSpec(downsample="identity"),
    ElasticSpec(downsample="dilated_area"),
)


def elastic_block(family: str, spec: ElasticSpec) -> nn.Module:
    block = random_norms(BLOCKS[family]())
    rule = find_rule(block)
    assert rule is not None
    elastic = rule.convert(block, spec).eval()
    for module in elastic.modules():  # trained filters that training has moved
        if type(module).__name__.startswith("Trained"):
            module.weight.data += 0.05 * torch.randn_like(module.weight)
    return elastic


def equal(got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * float(want.abs().max()))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.scales} {spec.downsample} {spec.upsample}")
@pytest.mark.parametrize("family", BLOCKS)
def test_blocks_equal_their_plain_form(family, spec):
    """Rounding alone may differ: 1e-5 of the largest value in float32, 1e-12 in float64 (eps times some 1e3 terms)."""
    block = elastic_block(family, spec)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        plain = copy.deepcopy(block).to(dtype)
        for size, memory_format in (((8, 12), torch.contiguous_format), ((7, 9), torch.channels_last)):
            x = torch.randn(2, WIDTH, *size, dtype=dtype).contiguous(memory_format=memory_format)
            fast = torch_form(plain, x)
            with torch.no_grad():
                equal(fast(x.clone()), plain(x.clone()), tolerance)


@functools.cache
def both_forms(family: str) -> tuple[nn.Module, nn.Module]:
    """(plain, fast), made once for all sizes."""
    block = elastic_block(family, ElasticSpec())
    return block, torch_form(block, torch.randn(1, WIDTH, 8, 8))


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(sorted(BLOCKS)),
    batch=st.integers(1, 3),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_at_any_size(family, batch, height, width, channels_last, seed):
    torch.manual_seed(seed)
    x = torch.randn(batch, WIDTH, height, width)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    plain, fast = both_forms(family)
    with torch.no_grad():
        equal(fast(x.clone()), plain(x.clone()), 1e-5)


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1], SPECS[2]], ids=lambda spec: f"{spec.scales} {spec.upsample}")
@pytest.mark.parametrize("family", ["resnext", "resnet", "dla"])
def test_branches_joined_before_their_last_convolution(family, spec):
    plain = elastic_block(family, spec).double()
    ends_with_conv3 = family != "resnet"  # whose branches join before it by themselves
    fast = nn.Sequential(torch_form(plain, torch.randn(1, WIDTH, 8, 8).double()))
    assert join_last_convolutions(fast) == int(ends_with_conv3)
    assert (type(fast[0]) is JoinedElasticBottleneck) == ends_with_conv3
    for size in ((8, 12), (7, 9), (1, 5)):
        x = torch.randn(2, WIDTH, *size, dtype=torch.float64)
        with torch.no_grad():
            equal(fast(x.clone()), plain(x.clone()), 1e-12)


@pytest.mark.parametrize("family", BLOCKS)
def test_a_nan_goes_where_the_plain_form_lets_it_go(family):
    x = torch.randn(2, WIDTH, 9, 8)
    x[0, 3, 8, 2] = torch.nan
    with torch.no_grad():
        wanted, found = (block(x.clone()) for block in both_forms(family))
    assert torch.equal(found.isnan(), wanted.isnan())
    assert wanted.isnan().any()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["resnext", "se_resnext", "resnet", "dla", "dense"])
def test_low_precision_is_no_less_exact(family, dtype):
    """Against float64, the folded form's error is at most twice the plain one's, which rounds more often."""
    plain = elastic_block(family, ElasticSpec()).to(dtype)
    x = torch.randn(2, WIDTH, 15, 10, dtype=dtype)
    fast = torch_form(plain, x)
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(x.double())
        errors = [float((block(x.clone()).double() - exact).norm()) for block in (plain, fast)]
    assert fast(x).dtype == dtype
    assert errors[1] <= 2 * errors[0]


def test_the_shortcut_of_a_dla_block_is_taken_as_it_is_given():
    block = elastic_block("dla", ElasticSpec())
    x, shortcut = torch.randn(2, 2, WIDTH, 9, 6).unbind()
    fast = torch_form(block, x)
    with torch.no_grad():
        equal(fast(x, shortcut), block(x, shortcut), 1e-5)
        assert not torch.allclose(fast(x, shortcut), fast(x))


def test_single_convolutions():
    """The fallback's layers followed by a norm, in their three kinds: divided inputs, groups, standardised weights."""
    from timm.layers import ScaledStdConv2d, StdConv2d

    for conv in (
        nn.Conv2d(WIDTH, 12, 3, padding=1),
        nn.Conv2d(WIDTH, 32, 3, padding=1, groups=8),
        StdConv2d(WIDTH, 12, 3),
        ScaledStdConv2d(WIDTH, 12, 3),
    ):
        layers = random_norms(
            nn.Sequential(convert_convolution(conv, ElasticSpec()), nn.BatchNorm2d(conv.out_channels))
        )
        x = torch.randn(2, WIDTH, 9, 11)
        fast = torch_form(layers, x)
        assert list(fast.optimization_report.folded) == ["1"]
        with torch.no_grad():
            equal(fast(x), layers(x), 1e-5)


def test_names_of_a_folded_bottleneck():
    """Kernels take the weights by these names."""
    fast = torch_form(elastic_block("resnext", ElasticSpec()), torch.randn(1, WIDTH, 8, 8))
    assert type(fast) is FoldedElasticBottleneck
    layers = ["conv1", "act1", "conv2", "act2", "conv3"]
    assert [name for name, _ in fast.high.named_children()] == layers
    low = fast.low[0]
    assert isinstance(low, LowBranch)
    assert low.scale == 2
    assert [name for name, _ in low.transform.named_children()] == layers
    assert fast.high.conv3.bias is not None
    assert low.transform.conv3.bias is None
    assert fast.shortcut is None
    se = torch_form(elastic_block("se_resnext", ElasticSpec()), torch.randn(1, WIDTH, 8, 8))
    assert type(se) is FoldedElasticSEBottleneck


def test_branches_of_equal_resolution_become_one():
    block = elastic_block("resnext", ElasticSpec(downsample="identity"))
    fast = torch_form(block, torch.randn(1, WIDTH, 8, 8))
    assert len(fast.low) == 0
    assert fast.high.conv2.groups == 4
