"""Any network: the rules of other families, single convolutions, blending, undoing and recalibration."""

from dataclasses import replace

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_network import plain
from timm.layers import ScaledStdConv2d
from timm.models import byobnet, cspnet
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn import ElasticSpec, elasticize
from elastic_cnn.nn import ElasticConv2d, convert_convolution, set_blend
from elastic_cnn.nn.compare import relative_error
from elastic_cnn.surgery import apply_surgery, describe_surgery, recalibrate, restore
from elastic_cnn.surgery.resolutions import measure_resolutions

IDENTITY = ElasticSpec(downsample="identity", upsample="identity")
# timm's own kinds of block, fewer and narrower: two in a stage, where a stage has more
CHANNELS = (16, 32, 32, 64)


def byob(name: str, depth: int = 2) -> dict:
    """The configuration of a network of `byobnet`, each stage cut to its first `depth` blocks (or groups of them)."""
    stages = []
    for stage, channels in zip(byobnet.model_cfgs[name].blocks, CHANNELS, strict=True):
        if isinstance(stage, (list, tuple)):
            stages.append([replace(block, c=channels) for block in stage[: 2 * depth]])
        else:
            stages.append(replace(stage, c=channels, d=min(stage.d, depth)))
    return {"blocks": stages, "stem_chs": 16}


def efficientnet(*stages: str) -> EfficientNet:
    return EfficientNet(decode_arch_def([[stage] for stage in stages]), num_classes=4, num_features=64, stem_size=16)


CSP = {"depth": (1, 2, 2, 1), "out_chs": (16, 32, 32, 64)}
MADE = {
    "plain": plain,
    "efficientnet": lambda: efficientnet(
        "ds_r1_k3_s1_e1_c16_se0.25", "ir_r2_k3_s2_e4_c16_se0.25", "ir_r2_k5_s2_e4_c24_se0.25", "ir_r1_k3_s2_e4_c32"
    ),
    "efficientnet_edge": lambda: efficientnet(
        "er_r1_k3_s1_e4_c16_fc16_noskip", "er_r2_k3_s2_e4_c16", "ir_r2_k5_s2_e4_c24", "ir_r1_k3_s2_e4_c32"
    ),
}
# {name: (arguments that keep it small, its block families)}; a network for each rule, others by single convolutions
NETWORKS = {
    "resnet18": ({"layers": (2, 2, 2, 1), "channels": (16, 16, 32, 32)}, {"basic block"}),
    "resnext50_32x4d": ({"layers": (2, 2, 2, 1), "cardinality": 4, "channels": (32, 32, 64, 64)}, {"bottleneck"}),
    "densenet121": ({"growth_rate": 8, "block_config": (2, 2, 2, 2)}, {"dense layer"}),
    "dla46x_c": ({}, {"DLA bottleneck"}),
    "efficientnet": ({}, {"inverted residual", "separable convolution"}),
    "efficientnet_edge": ({}, {"inverted residual", "fused inverted residual"}),
    "mobilenetv2_050": ({}, {"inverted residual", "separable convolution"}),
    "mobilenetv4_conv_small_050": ({}, {"inverted residual"}),
    "rexnet_100": ({"width_mult": 0.5, "depth_mult": 0.5}, {"inverted residual"}),
    "convnext_atto": ({"depths": (1, 1, 2, 1), "dims": (16, 16, 32, 32)}, {"ConvNeXt block"}),
    "convnext_atto_ols": ({"depths": (1, 1, 2, 1), "dims": (16, 16, 32, 32), "conv_mlp": False}, {"ConvNeXt block"}),
    "convnextv2_atto": ({"depths": (1, 1, 2, 1), "dims": (16, 16, 32, 32)}, {"convolution"}),
    "regnetx_002": ({}, {"RegNet bottleneck"}),
    "regnety_002": ({}, {"RegNet bottleneck"}),
    "resnetv2_18": ({"layers": (2, 2, 2, 1), "channels": (16, 16, 32, 32)}, {"pre-activation block"}),
    "nf_regnet_b0": ({"depths": (1, 2, 2, 1), "channels": (16, 24, 32, 32)}, {"norm-free block"}),
    "cs3darknet_focus_s": (
        {"stages": replace(cspnet.model_cfgs["cs3darknet_focus_s"].stages, **CSP)},
        {"cross-stage partial block"},
    ),
    "repvgg_a0": (byob("repvgg_a0"), {"RepVGG block"}),
    "mobileone_s0": (byob("mobileone_s0"), {"RepVGG block"}),
    "eca_resnext26ts": ({}, {"bottleneck"}),
    "plain": ({}, {"convolution"}),
}


def build(name: str) -> nn.Module:
    """A small network with every norm and scale away from its initial value, so that no block hides itself."""
    network = MADE[name]() if name in MADE else timm.create_model(name, num_classes=4, **NETWORKS[name][0])
    network.eval()
    generator = torch.Generator().manual_seed(0)
    for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if (tensor.dim() == 1 or key.endswith("gain")) and tensor.is_floating_point():
            low = 0.5 if key.endswith(("weight", "var", "gamma", "gain")) else -0.1
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + low)
    return network


def macs(network: nn.Module, x: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_division_blending_undoing_and_cost(name):
    network, x = build(name), torch.randn(1, 3, 64 if name.startswith("dla") else 67, 64)  # timm's DLA needs even sizes
    elastic = elasticize(network)
    kinds = {block.kind for block in elastic.elastic_report.blocks if block.converted}
    assert kinds == NETWORKS[name][1]
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    assert macs(elastic, x) < macs(network, x)
    with torch.no_grad():
        expected, converted = network(x), elastic(x)
        assert converted.isfinite().all()
        assert relative_error(converted, expected) > 1e-4
        # sums in another order through a dozen layers: float32 keeps five digits
        assert relative_error(elasticize(network, IDENTITY)(x), expected) < 1e-5
        set_blend(elastic, 0)
        assert relative_error(elastic(x), expected) < 1e-5
        set_blend(elastic, 0.5)
        assert relative_error(elastic(x), expected) > 1e-5
        set_blend(elastic, 1)
        assert torch.equal(elastic(x), converted)
        restored = restore(elastic)
    for (key, tensor), (other, original) in zip(
        restored.state_dict().items(), network.state_dict().items(), strict=True
    ):
        assert key == other
        assert torch.equal(tensor, original), key
    assert restored.elastic_report is None


@pytest.mark.parametrize("name", ["densenet121", "efficientnet", "convnext_atto", "regnetx_002"])
def test_gradients_reach_every_parameter_at_odd_sizes(name):
    network = elasticize(build(name)).train()
    network(torch.randn(2, 3, 71, 58)).square().mean().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    groups=st.sampled_from([1, 1, 2, 4]),
    kernel=st.sampled_from([1, 3, 5, (1, 7)]),
    dilation=st.sampled_from([1, 2]),
    bias=st.booleans(),
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    standardized=st.booleans(),
)
def test_random_convolutions(data, groups, kernel, dilation, bias, height, width, standardized):
    each_in, each_out = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 5))
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(dilation * (k // 2) for k in sizes)
    cls = ScaledStdConv2d if standardized else nn.Conv2d
    options = {"padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
    conv = cls(groups * each_in, groups * each_out, kernel, **options)
    x = torch.randn(2, groups * each_in, height, width)
    same = convert_convolution(conv, IDENTITY)
    torch.testing.assert_close(same(x), conv(x), rtol=1e-4, atol=1e-5)
    elastic = convert_convolution(conv, ElasticSpec())
    assert elastic(x).shape == conv(x).shape
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in conv.parameters())
    assert macs(elastic, x) <= macs(conv, x)


@pytest.mark.parametrize(
    ("conv", "reason"),
    [
        (nn.Conv2d(1, 8, 3, padding=1), "1 input channels cannot be divided"),
        (nn.Conv2d(4, 8, 3, stride=2), "changes the resolution"),
        (type("OddConv", (nn.Conv2d,), {})(4, 8, 3, padding=1), "OddConv is not a plain convolution"),
    ],
)
def test_convolutions_that_cannot_be_converted_say_why(conv, reason):
    with pytest.raises(ValueError, match=reason):
        convert_convolution(conv, ElasticSpec())


class Readers(nn.Module):
    """Convolutions in unusual places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.read = nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.unused = nn.Conv2d(8, 8, 1)
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.twice
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.read(self.first(x).to(self.read.weight.dtype))
        x = x * self.squeeze(x.mean((2, 3), keepdim=True))
        return self.last(self.down(self.again(self.twice(x))))


def test_convolutions_in_unusual_places():
    network = Readers()
    elastic = elasticize(network)
    assert elastic.elastic_report.converted == ["first", "twice"]
    assert elastic.elastic_report.left == {
        "read": "its weight is read by the module around it",
        "squeeze": "works on a 1 x 1 map",
        "unused": "did not run on a map",
        "down": "in the last stage",
        "last": "in the last stage",
    }
    assert elastic.again is elastic.twice
    assert isinstance(elastic.twice, ElasticConv2d)
    assert elastic(torch.randn(1, 3, 21, 17)).shape == network(torch.randn(1, 3, 21, 17)).shape


def test_specs_by_stage_and_three_scales_travel():
    network = build("plain")
    three = ElasticSpec(scales=(1, 2, 4), shares=(0.5, 0.25, 0.25))
    elastic = elasticize(network, {1: three, 2: ElasticSpec(shares=(0.75, 0.25))})
    again = apply_surgery(build("plain"), describe_surgery(elastic)).eval()
    again.load_state_dict(elastic.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), elastic(x))
    scales = [len(m.low) + 1 for m in elastic.modules() if isinstance(m, ElasticConv2d)]
    assert scales == [3, 3, 2, 2]


def test_resolutions_are_those_at_the_networks_own_input_size():
    sizes = measure_resolutions(plain(), lambda module: isinstance(module, nn.Conv2d)).sizes
    assert [maps.output for maps in sizes.values()] == [(size, size) for size in (224, 224, 112, 112, 56, 56)]
    assert all(maps.keeps_resolution for maps in sizes.values())


def test_recalibration_matches_statistics_by_hand():
    network = elasticize(build("resnet18"))
    batches = [torch.randn(4, 3, 64, 64) * 2 + 1 for _ in range(3)]
    count = recalibrate(network, batches)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    assert count == len(norms)
    first = network.conv1(torch.cat(batches)).detach()  # (12, 64, H, W)
    torch.testing.assert_close(network.bn1.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert not network.training
    before = network.bn1.running_mean.clone()
    with pytest.raises(ValueError, match="no image"):
        recalibrate(network, [])
    assert torch.equal(network.bn1.running_mean, before)
    with pytest.raises(ValueError, match="has no batch norm"):
        recalibrate(nn.Conv2d(3, 3, 1), batches)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="between 0 and 1"):
        set_blend(elasticize(build("resnet18")), 1.5)
    with pytest.raises(ValueError, match="no low-resolution branch"):
        set_blend(build("resnet18"), 1)
    with pytest.raises(ValueError, match="not elastic"):
        restore(build("resnet18"))
    with pytest.raises(ValueError, match="trained resampling"):
        restore(elasticize(build("resnet18"), ElasticSpec(downsample="trained")))
