"""DLA's blocks made elastic: the same weights, Equation 3, and the shortcut that the tree hands over."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from timm.models.dla import DLA, DlaBasic, DlaBottleneck

from elastic_cnn import ElasticSpec, elasticize
from elastic_cnn.surgery.candidates import OF_A_FAMILY
from elastic_cnn.surgery.dla_block import ElasticDlaBlock, convert_dla_basic_block, convert_dla_bottleneck

GROUPED = {"cardinality": 4, "base_width": 8}  # of 16 channels in the 3x3 where a block has 64


@pytest.mark.parametrize(
    ("block", "convert"),
    [
        (DlaBottleneck(64, 64, **GROUPED), convert_dla_bottleneck),
        (DlaBottleneck(16, 16), convert_dla_bottleneck),
        (DlaBasic(16, 16), convert_dla_basic_block),
    ],
)
@pytest.mark.parametrize("given_shortcut", [True, False])
def test_branches_at_full_resolution_are_the_block_itself(block, convert, given_shortcut):
    block = random_norms(block)
    elastic = convert(block, ElasticSpec(downsample="identity", upsample="identity"))
    x = torch.randn(2, block.conv1.in_channels, 9, 6)
    shortcut = torch.randn(x.shape) if given_shortcut else None
    torch.testing.assert_close(elastic(x, shortcut), block(x, shortcut), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in block.parameters())


@given(height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_equation_3_at_any_size(height, width):
    block = random_norms(DlaBottleneck(64, 64, **GROUPED))
    x, shortcut = torch.randn(2, 64, height, width), torch.randn(2, 64, height, width)

    def norm(norm, x, part=slice(None)):
        tensors = (t[part] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        return F.batch_norm(x, *tensors)

    low = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
    y = 0
    for half, h in ((slice(0, 8), x), (slice(8, 16), low)):
        h = norm(block.bn1, F.conv2d(h, block.conv1.weight[half]), half).relu()
        h = norm(block.bn2, F.conv2d(h, block.conv2.weight[half], padding=1, groups=2), half).relu()
        h = F.conv2d(h, block.conv3.weight[:, half])
        if half.start:
            h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
        y = y + h
    expected = (norm(block.bn3, y) + shortcut).relu()
    torch.testing.assert_close(
        convert_dla_bottleneck(block, ElasticSpec())(x, shortcut), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("block", [DlaBottleneck, DlaBasic])
def test_a_network_is_elastic_but_for_strides_and_its_last_level(block):
    network = DLA((1, 1, 1, 2, 1, 1), (8, 8, 16, 32, 48, 64), block=block, base_width=64, num_classes=3)
    elastic = elasticize(network)
    report = elastic.elastic_report
    assert report.converted == [
        "level2.tree2",
        "level3.tree1.tree2",
        "level3.tree2.tree1",
        "level3.tree2.tree2",
        "level4.tree2",
    ]
    assert {name: why for name, why in report.left.items() if why != OF_A_FAMILY} == {
        "level2.tree1": "changes the resolution",
        "level3.tree1.tree1": "changes the resolution",
        "level4.tree1": "changes the resolution",
        "level5.tree1": "in the last stage",
        "level5.tree2": "in the last stage",
    }
    assert isinstance(elastic.level2.tree2, ElasticDlaBlock)
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    assert elastic(torch.randn(1, 3, 64, 64)).shape == (1, 3)
