"""Equation 3 written out by hand, and the division of a trained layer."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elastic_cnn import ElasticSpec
from elastic_cnn.nn import CannotDivide, make_branches
from elastic_cnn.nn.split import divide_count, divide_groups, divide_inputs, divide_norm, divide_outputs


def conv_stack(channels=4):
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, 6, 3, padding=1), act=nn.ReLU()))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 21), st.integers(2, 21))
def test_two_scales_are_equation_3(height, width):
    high, low = conv_stack(), conv_stack()
    branches = make_branches([high, low], ElasticSpec(), probe="act")
    x = torch.randn(2, 4, height, width)
    small = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    up = F.interpolate(low(small), scale_factor=2, mode="bilinear", align_corners=False)
    expected = high(x) + up[:, :, :height, :width]
    torch.testing.assert_close(branches(x), expected, rtol=1e-5, atol=1e-6)


def test_three_scales_sum():
    transforms = [conv_stack() for _ in range(3)]
    branches = make_branches(transforms, ElasticSpec(scales=(1, 2, 4), shares=(0.5, 0.25, 0.25)), probe="act")
    x = torch.randn(1, 4, 13, 10)
    assert branches(x).shape == (1, 6, 13, 10)
    with torch.no_grad():
        for transform in transforms[1:]:
            transform.conv.weight.zero_()
            transform.conv.bias.zero_()
    torch.testing.assert_close(branches(x), transforms[0](x))


def test_dilated_branch_keeps_resolution_and_widens_its_kernel():
    branches = make_branches([conv_stack(), conv_stack()], ElasticSpec(downsample="dilated"), probe="act")
    assert branches.low[0].transform.conv.dilation == (2, 2)
    assert branches(torch.randn(1, 4, 9, 7)).shape == (1, 6, 9, 7)


def test_trained_resampling_follows_dtype():
    spec = ElasticSpec(downsample="trained", upsample="trained")
    branches = make_branches([conv_stack().double(), conv_stack().double()], spec, probe="act")
    assert branches(torch.randn(1, 4, 7, 5, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"scales": (2, 1)}, "start with 1"),
        ({"scales": (1,), "shares": (1.0,)}, "at least two"),
        ({"scales": (1, 2, 2), "shares": (0.5, 0.25, 0.25)}, "differ"),
        ({"scales": (1, 1.5)}, "whole numbers"),
        ({"shares": (0.5, 0.6)}, "sum to 1"),
        ({"shares": (1.0, 0.0)}, "positive"),
        ({"shares": (1.0,)}, "one share"),
        ({"downsample": "cubic"}, "'cubic'"),
        ({"upsample": "cubic"}, "'cubic'"),
        ({"upsample": "identity"}, "identity"),
    ],
)
def test_bad_specs_are_refused(fields, word):
    with pytest.raises(ValueError, match=word):
        ElasticSpec(**fields)


def test_spec_survives_json_values():
    spec = ElasticSpec(scales=(1, 2, 4), shares=(0.5, 0.25, 0.25), upsample="nearest")
    assert ElasticSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ValueError, match="'share'"):
        ElasticSpec.from_dict({"share": 0.5})


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.lists(st.floats(0.05, 1), min_size=2, max_size=4))
def test_divide_count_is_whole_positive_and_near(count, weights):
    shares = [weight / sum(weights) for weight in weights]
    if count < len(shares):
        with pytest.raises(CannotDivide, match=str(count)):
            divide_count(count, shares)
        return
    parts = divide_count(count, shares)
    assert sum(parts) == count
    assert min(parts) >= 1
    if all(count * share >= 1 for share in shares):  # else the least share was raised to one
        assert all(abs(part - count * share) < 1 for part, share in zip(parts, shares, strict=True))


def test_divisions_sum_to_the_whole_layer():
    x = torch.randn(2, 8, 5, 5)
    conv = nn.Conv2d(8, 12, 3, padding=1)
    torch.testing.assert_close(torch.cat([piece(x) for piece in divide_outputs(conv, [5, 7])], 1), conv(x))
    pieces = divide_inputs(conv, [3, 5])
    torch.testing.assert_close(pieces[0](x[:, :3]) + pieces[1](x[:, 3:]), conv(x), rtol=1e-5, atol=1e-6)
    grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
    pieces = divide_groups(grouped, [1, 3])
    torch.testing.assert_close(torch.cat([pieces[0](x[:, :2]), pieces[1](x[:, 2:])], 1), grouped(x))
    for whole, parts in ((conv, divide_inputs(conv, [3, 5])), (grouped, pieces)):
        assert sum(p.numel() for piece in parts for p in piece.parameters()) == sum(
            p.numel() for p in whole.parameters()
        )


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(4, 8)])
def test_divided_norms_concatenate(norm):
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(3, 8, 4, 4)
    low, high = divide_norm(norm, [2, 6])
    torch.testing.assert_close(torch.cat([low(x[:, :2]), high(x[:, 2:])], 1), norm(x), rtol=1e-5, atol=1e-6)


def test_undividable_norms_say_why():
    with pytest.raises(CannotDivide, match="group norm's groups of 4"):
        divide_norm(nn.GroupNorm(2, 8), [2, 6])
    with pytest.raises(CannotDivide, match="LayerNorm mixes channels"):
        divide_norm(nn.LayerNorm(8), [4, 4])
