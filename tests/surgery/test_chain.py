"""Chains of layers divided over branches, against the chains that they were made from."""

from dataclasses import replace

import pytest
import timm
import timm.utils
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from timm.layers import BatchNormAct2d, ConvNormAct, ScaledStdConv2d, SEModule
from timm.models.byobnet import MobileOneBlock, RepVggBlock, model_cfgs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn import ElasticSpec, elasticize
from elastic_cnn.nn import CannotDivide, GatedBranches
from elastic_cnn.surgery.chain import convert_chain
from elastic_cnn.surgery.repvgg_block import convert_repvgg_block

IDENTITY = ElasticSpec(downsample="identity", upsample="identity")


class Chain(nn.Module):
    """Layers `layers.0`, `layers.1`, ... one after another."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    @property
    def path(self):
        return tuple(f"layers.{i}" for i in range(len(self.layers)))


def run(network, x):
    """What it gives, and the multiply-adds that this took."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = network(x)
    return output, counter.get_total_flops() // 2


@st.composite
def chains(draw):
    """Two to four convolutions, plain or standardised, dense or grouped, with what stands between them."""
    channels = first = 4 * draw(st.integers(1, 3))
    layers = []
    for _ in range(draw(st.integers(2, 4))):
        grouped = draw(st.booleans())
        out = channels * draw(st.sampled_from([1, 2])) if grouped else 4 * draw(st.integers(1, 4))
        kernel, dilation = draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
        groups = draw(st.sampled_from([2, 4, channels])) if grouped else 1
        options = {"padding": dilation * (kernel // 2), "dilation": dilation, "groups": groups}
        kinds = [nn.Conv2d, nn.Conv2d, nn.Conv2d, ScaledStdConv2d]
        cls = nn.Conv2d if kernel == 1 else draw(st.sampled_from(kinds))  # one weight has no standard deviation
        layers.append(cls(channels, out, kernel, bias=draw(st.booleans()), **options))
        channels = out
        norms = [nn.BatchNorm2d(out), BatchNormAct2d(out), nn.GroupNorm(2, out), nn.GroupNorm(out, out), nn.Identity()]
        layers.append(draw(st.sampled_from(norms)))
        others = [nn.ReLU(), nn.SiLU(), nn.PReLU(out), SEModule(out, rd_channels=2), nn.Softmax2d(), nn.Identity()]
        layers.append(draw(st.sampled_from(others)))
    return first, random_norms(Chain(layers))


@settings(max_examples=120, deadline=None)
@given(drawn=chains(), height=st.integers(5, 16), width=st.integers(5, 16), scales=st.sampled_from([(1, 2), (1, 2, 4)]))
def test_random_chains(drawn, height, width, scales):
    channels, chain = drawn
    shares = (0.5, 0.5) if len(scales) == 2 else (0.5, 0.25, 0.25)
    if all(1 < layer.groups < len(scales) for layer in chain.layers if isinstance(layer, nn.Conv2d)):
        with pytest.raises(CannotDivide, match="groups cannot be divided over"):
            convert_chain(chain, ElasticSpec(scales, shares), [chain.path])
        return
    x = torch.randn(2, channels, height, width)
    same = convert_chain(chain, ElasticSpec(scales, shares, "identity", "identity"), [chain.path])
    # float32 sums in another order, through up to four layers
    expected, macs = run(chain, x)
    torch.testing.assert_close(same(x), expected, rtol=1e-3, atol=1e-4)
    elastic = convert_chain(chain, ElasticSpec(scales, shares), [chain.path])
    output, elastic_macs = run(elastic, x)
    assert output.shape == expected.shape
    assert elastic_macs <= macs
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in chain.parameters())


def test_branches_end_where_channels_mix():
    def kinds(layers):
        elastic = convert_chain(Chain(layers), ElasticSpec(), [Chain(layers).path])
        return [type(layer).__name__ for layer in elastic.layers]

    reduce, depthwise, expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 8, 1)
    gap = ["Identity"] * 2
    assert kinds([reduce, depthwise, nn.ReLU(), expand, nn.ReLU()]) == ["PartedBranches", *gap, "Identity", "ReLU"]
    assert kinds([reduce, depthwise, nn.PReLU(4), expand]) == ["PartedBranches", "Identity", "PReLU", "Conv2d"]
    assert kinds([reduce, depthwise, SEModule(4), expand]) == ["GatedBranches", *gap, "Identity"]
    assert kinds([reduce, nn.Softmax2d(), expand]) == ["ElasticConv2d", "Softmax2d", "ElasticConv2d"]
    twice = [reduce, nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), expand]
    assert kinds(twice) == ["PartedBranches", "Identity", "PartedBranches", "Identity"]


def test_a_gate_sees_the_channels_of_all_branches():
    chain = random_norms(Chain([ConvNormAct(8, 8, 1), SEModule(8, rd_channels=4), ConvNormAct(8, 8, 1)]))
    elastic = convert_chain(chain, ElasticSpec(), [chain.path])
    gated = elastic.layers[0].conv
    assert isinstance(gated, GatedBranches)
    x = torch.randn(1, 8, 6, 6)
    seen = []
    gated.gate.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    elastic(x)
    low = gated.low[0]
    inner = [gated.high.transform[:-1](x), low.transform[:-1](nn.functional.avg_pool2d(x, 2))]
    torch.testing.assert_close(seen[0][0], torch.cat([maps.mean((2, 3), keepdim=True) for maps in inner], 1))
    by_hand = gated.high.transform[-1](inner[0] * seen[0][1][:, :4])
    up = nn.functional.interpolate(low.transform[-1](inner[1] * seen[0][1][:, 4:]), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(gated(x), by_hand + up)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [([nn.ReLU()], "no convolution"), ([nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()], "changes the resolution")],
)
def test_chains_that_cannot_be_divided_say_why(layers, reason):
    with pytest.raises(CannotDivide, match=reason):
        convert_chain(Chain(layers), ElasticSpec(), [Chain(layers).path])


@pytest.mark.parametrize(("kind", "groups"), [(RepVggBlock, 1), (RepVggBlock, 4), (MobileOneBlock, 1)])
def test_parallel_convolutions_become_one_after_training(kind, groups):
    block = random_norms(kind(8, 8, group_size=8 // groups if groups > 1 else None))
    assert block.identity is not None
    block.double()  # what rounding hides in float32 shows: a forgotten eps, say
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(convert_repvgg_block(block, IDENTITY)(x), block(x), rtol=1e-10, atol=1e-10)
    elastic = convert_repvgg_block(block, ElasticSpec()).eval()
    expected, macs = run(elastic, x)
    assert macs < run(block, x)[1]
    for _ in range(2):  # the second time changes nothing
        elastic.reparameterize()
        torch.testing.assert_close(elastic(x), expected, rtol=1e-10, atol=1e-10)
    assert len([m for m in elastic.branches.modules() if isinstance(m, nn.Conv2d)]) == 2


def test_a_reparameterized_block_converts_too():
    block = random_norms(RepVggBlock(8, 8))
    x = torch.randn(1, 8, 6, 6)
    block.reparameterize()
    torch.testing.assert_close(convert_repvgg_block(block, IDENTITY)(x), block(x), rtol=1e-4, atol=1e-5)
    stages = [replace(stage, c=16, d=min(stage.d, 2)) for stage in model_cfgs["repvgg_a0"].blocks]
    network = timm.create_model("repvgg_a0", num_classes=4, blocks=stages, stem_chs=16).eval()
    elastic = timm.utils.reparameterize_model(elasticize(network))
    assert elastic(torch.randn(1, 3, 33, 65)).isfinite().all()
