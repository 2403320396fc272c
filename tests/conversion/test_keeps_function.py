"""Order, refit and shares on small networks of every rule: what is exact is exact, and what is fitted gets better."""

import copy

import pytest
import timm
import torch
import torchvision
from plain_network import plain
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from timm.models.nfnet import NfCfg, NormFreeNet
from torch import nn

from elastic_cnn import ElasticSpec, create_model, elasticize, restore, set_blend
from elastic_cnn.conversion import Calibration, Refit, convert
from elastic_cnn.conversion.order import order_channels
from elastic_cnn.conversion.work import macs_of_modules
from elastic_cnn.nn.compare import relative_error

SMALL = {"num_classes": 4}
SHALLOW = {**SMALL, "layers": (2, 2, 2, 1), "channels": (16, 16, 32, 32)}


def torchvision_bottlenecks() -> nn.Module:
    block = torchvision.models.resnet.Bottleneck
    return torchvision.models.ResNet(block, [1, 2, 1, 1], num_classes=4, width_per_group=16)


def in_a_row(*blocks: nn.Module) -> nn.Module:
    """Blocks of 16 channels at half resolution, then one more at a quarter, which is the last stage."""
    stem, end = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
    return nn.Sequential(stem, *blocks, nn.MaxPool2d(2), end, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


# a small network for each rule, and for each way in which a chain can be divided
NETWORKS = {
    "bottleneck": lambda: timm.create_model("resnet26", **SHALLOW),
    "torchvision": torchvision_bottlenecks,
    "grouped": lambda: timm.create_model("resnext50_32x4d", **SHALLOW, cardinality=8, base_width=8),
    "gated": lambda: timm.create_model("seresnext26d_32x4d", **SHALLOW, cardinality=8, base_width=8),
    "basic": lambda: timm.create_model("resnet18", **SHALLOW),
    "dense": lambda: timm.create_model("densenet121", **SMALL, growth_rate=8, block_config=(2, 3, 2, 2)),
    "dla": lambda: create_model("dla46x_c", **SMALL),
    "mobilenet": lambda: timm.create_model("mobilenetv2_050", **SMALL),
    "efficientnet": lambda: timm.create_model("mnasnet_small", **SMALL),
    "fused": lambda: timm.create_model("efficientnet_es", **SMALL),
    "convnext": lambda: timm.create_model("convnext_atto", **SMALL, depths=(1, 1, 2, 1), dims=(16, 16, 32, 32)),
    "convnext_linear": lambda: timm.create_model(
        "convnext_atto_ols", **SMALL, depths=(1, 1, 2, 1), dims=(16, 16, 32, 32), conv_mlp=False
    ),
    "regnet": lambda: timm.create_model("regnety_002", **SMALL),
    "pre-activation": lambda: timm.create_model("resnetv2_18", **SMALL, channels=(16, 16, 32, 32)),
    "norm-free": lambda: NormFreeNet(
        NfCfg((2, 1, 1, 1), (32, 32, 32, 32), stem_type="3x3", group_size=8), num_classes=4
    ),
    "cross-stage": lambda: timm.create_model("cs3darknet_focus_s", **SMALL),
    "repvgg": lambda: in_a_row(RepVggBlock(16, 16), RepVggBlock(16, 16, 3), nn.MaxPool2d(2), RepVggBlock(16, 16)),
    "mobileone": lambda: in_a_row(
        *(MobileOneBlock(16, 16, 3, group_size=1) for _ in "ab"), nn.MaxPool2d(2), MobileOneBlock(16, 16)
    ),
    "plain": plain,
}


def build(name: str) -> nn.Module:
    """Every norm and scale away from its initial value, so that no block hides itself."""
    network = NETWORKS[name]().eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if (tensor.dim() == 1 or key.endswith("gain")) and tensor.is_floating_point():
            low = 0.5 if key.endswith(("weight", "var", "gamma", "gain")) else -0.1
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.4 + low)
    return network


def smooth(count: int, height: int = 45, width: int = 52, seed: int = 0) -> torch.Tensor:
    """Pictures with structure at several scales, odd in size: (count, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, height, width)
    for side in (3, 9, 27):
        coarse = torch.randn(count, 3, side, side, generator=generator)
        total += nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_every_rule(name):
    """Order alone changes nothing and at blend 0 the conversion is the base; a refit lowers the error of every block,
    on the photos that it saw; parameters stay as many; restored without a refit, it is the base."""
    network, images = build(name), smooth(3)
    expected = network(images)
    exact = copy.deepcopy(network).double()
    names = elasticize(network).elastic_report.converted[:2]
    specs = {name: ElasticSpec() for name in names}
    blocks = elasticize(network, specs).elastic_report.conversions
    with torch.no_grad():
        order_channels(exact, blocks, [images.double()])
    assert relative_error(exact(images.double()), copy.deepcopy(network).double()(images.double())) < 1e-10
    ordered = convert(network, images, specs, calibration=Calibration(refit=None))
    assert relative_error(restore(ordered)(images), expected) < 1e-4
    set_blend(ordered, 0)
    assert relative_error(ordered(images), expected) < 1e-4
    elastic = convert(network, images, specs)
    report = elastic.conversion_report
    assert [block.name for block in report.blocks] == list(blocks)
    assert all(block.error <= block.error_before for block in report.blocks)
    gained = [block.name for block in report.blocks if block.error < 0.999 * block.error_before]
    assert gained == [block.name for block in report.blocks if not block.notes]
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    assert macs_of_modules(elastic, images)[""] == pytest.approx(
        report.macs_ratio * macs_of_modules(network, images)[""]
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_of_all_stages_and_strides(name):
    """`everywhere` takes in the last stage and blocks that change the resolution; at blend 0 they are what they
    were."""
    network, images = build(name), smooth(2)
    usual = elasticize(network).elastic_report.converted
    elastic = elasticize(network, everywhere=True).eval()
    assert set(usual) <= set(elastic.elastic_report.converted)
    assert not any("last stage" in block.reason for block in elastic.elastic_report.blocks)
    set_blend(elastic, 0)
    assert relative_error(elastic(images), network(images)) < 1e-4
    if name in ("bottleneck", "grouped", "basic", "dla", "mobilenet"):
        assert len(elastic.elastic_report.converted) > len(usual) + 1
        set_blend(elastic, 1)
        assert elastic(images).shape == network(images).shape
        strided = [n for n in elastic.elastic_report.converted if n not in usual][:1]
        fitted = convert(network, images, dict.fromkeys(strided, ElasticSpec()), everywhere=True)
        (block,) = fitted.conversion_report.blocks
        assert block.error < block.error_before
        assert not block.notes


@pytest.mark.parametrize("name", ["grouped", "bottleneck"])
def test_the_smoothest_channels_stand_last(name):
    """Measured again on the ordered network, where nothing moves, what a unit takes away falls from unit to unit;
    behind a 3 x 3 kernel, which sees what units have in common, from the first one to all others."""
    network, images = build(name), smooth(3)
    blocks = elasticize(network).elastic_report.conversions
    with torch.no_grad():
        order_channels(network, blocks, [images])
        again = order_channels(network, blocks, [images], move=False)
    for block, sections in again.items():
        for each in sections:
            last = each[:-1] if name == "grouped" else each[:1]
            assert torch.all(last >= each[1:] * (1 - 1e-4)), block


def test_a_refitted_block_is_right_in_the_mean():
    """A regression with a constant leaves no mean error in any channel of the block's output."""
    network, images = build("basic"), smooth(6)
    options = Calibration(refit=Refit(ridge=1e-9, least=10**6), order=False)
    elastic = convert(network, images, {"layer1.0": ElasticSpec()}, calibration=options)
    ends = []
    for each, act in ((elastic, "act"), (network, "act2")):
        each.layer1[0].get_submodule(act).register_forward_pre_hook(
            lambda _, args: ends.append(args[0].detach().clone())
        )
        each(images)
    lacking = (ends[0] - ends[1]).mean((0, 2, 3)).abs() / ends[1].std((0, 2, 3))
    assert float(lacking.max()) < 1e-3
