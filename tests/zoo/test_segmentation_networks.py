"""The segmentation networks: logits of any size, training of every weight, and the released code's conventions."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import elastic_cnn
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.zoo.dla_up import bilinear_kernel

sys.path.insert(0, str(Path(__file__).parent))
from any_size import check_export, check_training

SIDES = st.integers(33, 130)
RESNEXT = {"layers": (2, 2, 2, 3), "channels": (16, 16, 32, 32), "cardinality": 4, "base_width": 16}
DLA = {"channels": (8, 16, 32, 48, 64, 96), "cardinality": 4, "base_width": 8}
SMALL = {
    "deeplabv3_resnext50": RESNEXT,
    "deeplabv3_resnext50_elastic": RESNEXT,
    "dla60x_seg": DLA,
    "dla60x_elastic_seg": DLA,
}


@pytest.fixture(scope="module", params=SMALL)
def small(request):
    return elastic_cnn.create_model(request.param, num_classes=4, **SMALL[request.param])


@given(height=SIDES, width=SIDES)
@settings(max_examples=8, deadline=None)
def test_logits_have_the_size_of_the_image(small, height, width):
    with torch.no_grad():
        logits = small.eval()(torch.randn(1, 3, height, width))
    assert logits.shape == (1, 4, height, width)
    assert logits.isfinite().all()


def test_every_weight_trains_and_checkpointing_changes_nothing(small):
    check_training(small, torch.randn(2, 3, 65, 49))


def test_export():
    network = elastic_cnn.create_model("dla60x_elastic_seg", num_classes=4, **DLA, levels=(1, 1, 1, 1, 1, 1))
    check_export(network, torch.randn(1, 3, 65, 47))


@pytest.mark.parametrize("elastic", [False, True])
def test_deeplab_has_stride_16_and_the_multi_grid(elastic):
    with torch.device("meta"):
        network = elastic_cnn.create_model("deeplabv3_resnext50" + "_elastic" * elastic)
        features = network.backbone.forward_features(torch.empty(1, 3, 513, 513))
        logits = network.eval()(torch.empty(1, 3, 513, 513))
    assert features.shape == (1, 2048, 33, 33)
    assert logits.shape == (1, 21, 513, 513)
    dilations = [block.conv2.dilation[0] for block in network.backbone.layer4]
    assert dilations == [2, 4, 8]
    rates = [m.dilation[0] for m in network.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert rates == [6, 12, 18]
    elastic_blocks = [name for name, m in network.named_modules() if isinstance(m, ElasticBranches)]
    assert bool(elastic_blocks) == elastic
    assert not any("layer4" in name for name in elastic_blocks)


def test_the_multi_grid_needs_three_blocks():
    with pytest.raises(ValueError, match="three blocks in the last stage, got 2"):
        elastic_cnn.create_model("deeplabv3_resnext50", **{**RESNEXT, "layers": (1, 1, 1, 2)})


@pytest.mark.parametrize(("size", "kept"), [((65, 47), (65, 47)), ((64, 46), (63, 45))])
def test_released_output_of_dla_is_log_probabilities_without_the_last_row(size, kept):
    network = elastic_cnn.create_model("dla60x_seg", num_classes=4, **DLA).eval()
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        released, logits = network.released_output(x), network(x)
    assert released.shape == (1, 4, *kept)
    torch.testing.assert_close(released.exp().sum(1), torch.ones(1, *kept))
    torch.testing.assert_close(released, logits[..., : kept[0], : kept[1]].log_softmax(1))


def test_upsampling_starts_bilinear():
    ramp = torch.arange(5.0)[:, None] + 10 * torch.arange(4.0)[None, :]
    x = ramp.expand(1, 3, 5, 4)
    y = nn.functional.conv_transpose2d(x, bilinear_kernel(3), None, 2, 1, groups=3)
    expected = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(y[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
    network = elastic_cnn.create_model("dla60x_seg", num_classes=4, **DLA)
    ups = [m.weight for m in network.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(ups) == 1 + 2 + 3 + 4
    assert all(torch.equal(weight, bilinear_kernel(weight.shape[0])) for weight in [*ups, network.upsample.weight])
