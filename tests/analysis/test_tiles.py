"""Tiles that cover every pixel once, masks of any size equal to the network's own, and the bound of memory."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from elastic_cnn.analysis.segment import SMALLEST, bytes_needed, peak_bytes, segment_photo, tile_for_memory, tiles
from elastic_cnn.data.mask_transforms import normalize
from elastic_cnn.zoo.checkpoint import InputSpec

SIDE = st.integers(1, 90)


@settings(max_examples=80, deadline=None)
@given(height=SIDE, width=SIDE, tile=st.integers(1, 50), margin=st.integers(0, 12))
def test_tiles_cover_every_pixel_once_and_keep_their_margins(height, width, tile, margin):
    assume(tile > 2 * margin)
    covered = np.zeros((height, width), int)
    for part in tiles(height, width, tile, margin):
        (top, left, bottom, right), (up, before, down, behind) = part.outer, part.inner
        covered[up:down, before:behind] += 1
        assert 0 <= top <= up < down <= bottom <= height
        assert 0 <= left <= before < behind <= right <= width
        assert (bottom - top, right - left) == (min(tile, height), min(tile, width))
        assert up - top >= margin or top == 0
        assert bottom - down >= margin or bottom == height
        assert before - left >= margin or left == 0
        assert right - behind >= margin or right == width
    assert (covered == 1).all()


def test_a_margin_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="a tile of 8 pixels is too small for margins of 4"):
        list(tiles(20, 20, 8, 4))


class Local(nn.Module):
    """Two 3x3 convolutions: each pixel depends on its neighbours up to 2 away."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))

    def forward(self, images):
        return self.layers(images)


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))


def test_whole_photos_are_the_networks_own_answer(photo):
    network, spec = Local().eval(), InputSpec()
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    with torch.no_grad():
        expected = network(normalize(pixels, spec.mean, spec.std)[None])[0].argmax(0)
    mask = segment_photo(network, photo, spec)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, expected.numpy())


@pytest.mark.parametrize("tile", [8, 17, 40, 200])
def test_tiles_with_enough_context_equal_the_whole(photo, tile):
    """The network sees 2 pixels far, so margins of 2 hide the cut; the zeros outside the photo are there for both.
    Sums in another order could swap classes whose logits are equal to 1e-6."""
    network = Local().eval()
    whole = segment_photo(network, photo, InputSpec())
    tiled = segment_photo(network, photo, InputSpec(), tile, margin=2)
    assert (tiled != whole).mean() <= 1e-3
    narrow = segment_photo(network, photo, InputSpec(), 8, margin=0)
    assert (narrow != whole).mean() > 1e-2  # the margin matters


class Known(nn.Module):
    """A chain whose need is known: the image (3 planes), 16 planes, 8 planes, logits of 4 planes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, images):
        return self.third(self.second(self.first(images)))


def test_peak_counts_the_tensors_that_live_together():
    plane = 128 * 128 * 4
    # largest while the second convolution runs: its input of 16 planes and output of 8, beside the image of 3
    assert peak_bytes(Known(), 128) == (3 + 16 + 8) * plane


def test_peak_leaves_the_network_as_it_was():
    network = Local().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    peak_bytes(network, 64)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8, 8)


@pytest.mark.parametrize("mebibytes", [44, 50, 71])
def test_the_tile_is_the_largest_within_the_bound(mebibytes):
    network, bound = Known(), mebibytes * 2**20
    tile = tile_for_memory(network, bound, longest=4000)
    assert tile is not None
    assert bytes_needed(network, tile) <= bound < bytes_needed(network, tile + 32)
    assert bytes_needed(network, tile) > peak_bytes(network, tile)


def test_a_photo_within_the_bound_is_done_whole():
    assert tile_for_memory(Known(), 2**30, longest=500) is None


def test_a_bound_below_the_smallest_tile_is_refused():
    with pytest.raises(ValueError, match=f"too small: the smallest tile, {SMALLEST} pixels, needs about"):
        tile_for_memory(Known(), 2**20, longest=4000)
