"""Resampling against torch's own operators and against the released code's way with odd sizes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn.nn.resample import DOWNSAMPLE_KINDS, UPSAMPLE_KINDS, make_downsample, make_upsample

sizes = st.integers(1, 19)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes)
def test_area_equals_replicate_padding_then_pooling(height, width):
    x = torch.randn(2, 3, height, width)
    padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    torch.testing.assert_close(make_downsample("area", 2, 3)(x), F.avg_pool2d(padded, 2), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DOWNSAMPLE_KINDS), st.sampled_from(UPSAMPLE_KINDS), st.sampled_from([1, 2, 3, 4]), sizes, sizes)
def test_sizes(down, up, factor, height, width):
    x = torch.randn(1, 4, height, width)
    low = make_downsample(down, factor, 4)(x)
    keeps = factor == 1 or down in ("dilated", "dilated_area", "identity")
    small = (height, width) if keeps else (-(-height // factor), -(-width // factor))
    assert low.shape == (1, 4, *small)
    high = make_upsample(up, factor, 4)(low)
    grow = 1 if factor == 1 or up == "identity" else factor
    assert high.shape == (1, 4, small[0] * grow, small[1] * grow)


@pytest.mark.parametrize("kind", ["area", "nearest", "bilinear", "trained", "dilated_area"])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downsampling_keeps_a_constant(kind, factor):
    x = torch.full((1, 2, 7, 9), 3.0)
    low = make_downsample(kind, factor, 2)(x)
    torch.testing.assert_close(low, torch.full_like(low, 3.0))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_trained_kinds_start_as_their_fixed_counterparts(factor):
    x = torch.randn(2, 5, 4 * factor, 3 * factor, dtype=torch.float64)
    trained = make_downsample("trained", factor, 5, dtype=torch.float64)
    torch.testing.assert_close(trained(x), F.avg_pool2d(x, factor))
    trained = make_upsample("trained", factor, 5, dtype=torch.float64)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(trained(x), expected)


def test_bilinear_equals_area_at_two():
    x = torch.randn(1, 3, 11, 8)
    torch.testing.assert_close(make_downsample("bilinear", 2, 3)(x), make_downsample("area", 2, 3)(x))


@pytest.mark.parametrize("kind", ["area", "nearest", "bilinear", "trained"])
def test_channels_last_stays(kind):
    x = torch.randn(2, 8, 10, 6).to(memory_format=torch.channels_last)
    low = make_downsample(kind, 2, 8)(x)
    torch.testing.assert_close(low, make_downsample(kind, 2, 8)(x.contiguous()))
    high = make_upsample("bilinear", 2, 8)(low.to(memory_format=torch.channels_last))
    assert high.is_contiguous(memory_format=torch.channels_last)


def test_unknown_kinds_are_named():
    with pytest.raises(ValueError, match="'cubic'"):
        make_downsample("cubic", 2, 1)
    with pytest.raises(ValueError, match="'cubic'"):
        make_upsample("cubic", 2, 1)
