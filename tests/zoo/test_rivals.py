"""Rivals: octave convolution against its formulas written out, dilated branches against two convolutions, budgets."""

import pytest
import torch
from torch.nn import functional

from elastic_cnn.nn.complexity import count
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.octave import OctaveConv2d
from elastic_cnn.zoo.rivals import NAMES, DilatedBranches

THIN = {"channels": (16, 32, 64, 128), "cardinality": 8, "base_width": 8, "stem_width": 16, "num_classes": 10}


def mean_of_windows(x):
    """2 x 2 means, slowly; what lies beyond the edge does not count."""
    rows = [slice(start, start + 2) for start in range(0, x.shape[2], 2)]
    columns = [slice(start, start + 2) for start in range(0, x.shape[3], 2)]
    return torch.stack([torch.stack([x[:, :, r, c].mean((2, 3)) for c in columns], -1) for r in rows], -2)


def nearest(x, height, width):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :height, :width]


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_octave_convolution_is_equation_3(size, kernel):
    conv = OctaveConv2d(16, 24, kernel, 0.5, 0.25, groups=2).double()
    high, low = torch.randn(2, 8, *size).double(), torch.randn(2, 8, -(-size[0] // 2), -(-size[1] // 2)).double()

    def f(x, part):
        return functional.conv2d(x, part.weight, padding=kernel // 2, groups=2)

    found = conv((high, low))
    torch.testing.assert_close(found[0], f(high, conv.high_to_high) + nearest(f(low, conv.low_to_high), *size))
    torch.testing.assert_close(found[1], f(low, conv.low_to_low) + f(mean_of_windows(high), conv.high_to_low))
    assert [part.shape[1] for part in found] == [18, 6]


def test_octave_convolution_with_one_resolution_on_a_side():
    x = torch.randn(1, 8, 6, 6)
    first, last = OctaveConv2d(8, 16, 3, 0, 0.5), OctaveConv2d(16, 8, 3, 0.5, 0)
    high, low = first(x)
    assert (high.shape, low.shape) == ((1, 8, 6, 6), (1, 8, 3, 3))
    assert last((high, low)).shape == (1, 8, 6, 6)
    plain = OctaveConv2d(8, 16, 3, 0, 0)
    torch.testing.assert_close(plain(x), functional.conv2d(x, plain.high_to_high.weight, padding=1))


def test_a_strided_octave_convolution_pools_first():
    one, two = OctaveConv2d(8, 8, 3, 0.5, 0.5), OctaveConv2d(8, 8, 3, 0.5, 0.5, stride=2)
    two.load_state_dict(one.state_dict())
    maps = torch.randn(1, 4, 9, 9), torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(two(maps), one(tuple(mean_of_windows(part) for part in maps)))


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_octave_convolution_costs_what_the_paper_says(alpha):
    """Parameters of the plain convolution; multiply-adds 1 - 3/4 alpha (2 - alpha) of it (Table 1 of Chen et al.)."""
    network = torch.nn.Sequential(OctaveConv2d(16, 16, 3, 0, alpha), OctaveConv2d(16, 16, 3, alpha, alpha))
    both, first = (count(part, (16, 8, 8)) for part in (network, network[:1]))
    assert both.parameters - first.parameters == 16 * 16 * 9
    assert both.macs - first.macs == (1 - 0.75 * alpha * (2 - alpha)) * 16 * 16 * 9 * 64


def test_octave_network_has_low_resolution_from_the_first_block_to_the_last_stage():
    network = create_model("resnext_small_octave", **THIN).eval()
    blocks = [block for stage in (network.layer1, network.layer2, network.layer3, network.layer4) for block in stage]
    kinds = []
    for block in blocks:
        block.register_forward_hook(lambda *found: kinds.append(type(found[2]).__name__))
    network(torch.randn(1, 3, 48, 48))
    assert kinds == ["tuple"] * 7 + ["Tensor"] * 2
    for message, alpha in (("must lie between 0 and 1", 1.0), ("leaves no channel", 0.01)):
        with pytest.raises(ValueError, match=message):
            create_model("resnext_small_octave", **THIN, alpha=alpha)


@pytest.mark.parametrize("name", ["resnext_small", "resnext_small_elastic"])
def test_pooled_networks_differ_in_strided_blocks_alone(name):
    """Equal cost; with the same weights a strided block is the plain block of stride 1 behind the mean of 2 x 2."""
    plain, pooled = create_model(name, **THIN), create_model(f"{name}_pooled", **THIN)
    costs = [count(network, (3, 48, 48)) for network in (plain, pooled)]
    assert (costs[0].parameters, costs[0].macs) == (costs[1].parameters, costs[1].macs)
    kinds = [[type(block).__name__ for block in pooled.get_submodule(f"layer{stage}")] for stage in (1, 2, 3, 4)]
    assert [row[0] for row in kinds][1:] == ["OctaveBottleneck"] * 3
    assert "OctaveBottleneck" not in sum((row[1:] for row in kinds), kinds[0])

    block = pooled.layer2[0].eval()
    x = torch.randn(2, block.conv1.high_to_high.in_channels, 8, 8)
    inside = mean_of_windows(torch.relu(block.norm1.norms[0](functional.conv2d(x, block.conv1.high_to_high.weight))))
    weight, shortcut = block.conv2.high_to_high.weight, block.shortcut[0].high_to_high.weight
    y = torch.relu(block.norm2.norms[0](functional.conv2d(inside, weight, padding=1, groups=8)))
    y = block.norm3.norms[0](functional.conv2d(y, block.conv3.high_to_high.weight))
    wanted = torch.relu(y + block.shortcut[1].norms[0](functional.conv2d(mean_of_windows(x), shortcut)))
    torch.testing.assert_close(block(x), wanted)


def test_dilated_branches_are_two_convolutions_and_cost_one():
    conv = torch.nn.Conv2d(16, 16, 3, 2, 1, groups=4, bias=False)
    branches, x = DilatedBranches(conv), torch.randn(2, 16, 9, 9)
    small, large = (branch.weight for branch in branches.branches)
    wanted = [
        functional.conv2d(x[:, :8], small, stride=2, padding=1, groups=2),
        functional.conv2d(x[:, 8:], large, stride=2, padding=2, dilation=2, groups=2),
    ]
    torch.testing.assert_close(branches(x), torch.cat(wanted, 1))
    cost, plain = count(branches, (16, 9, 9)), count(conv, (16, 9, 9))
    assert (cost.parameters, cost.macs) == (plain.parameters, plain.macs)
    with pytest.raises(ValueError, match="an even number"):
        DilatedBranches(torch.nn.Conv2d(9, 9, 3, groups=3))


@pytest.mark.parametrize("name", NAMES)
def test_rivals_have_the_budget_of_the_base_and_learn(name):
    """Within 12% of the parameters and at most 5% more multiply-adds; every parameter gets a gradient."""
    base, network = count(create_model("resnext_small", **THIN), (3, 48, 48)), create_model(name, **THIN)
    cost = count(network, (3, 48, 48))
    assert cost.parameters == pytest.approx(base.parameters, rel=0.12)
    assert cost.macs < 1.05 * base.macs
    for parameter in network.parameters():  # the norms that timm starts at 0 would hide what is behind them
        torch.nn.init.normal_(parameter, std=0.1)
    network(torch.randn(2, 3, 45, 51)).square().sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_res2net_needs_groups_for_all_its_scales():
    with pytest.raises(ValueError, match="cardinality=6 cannot be divided"):
        create_model("resnext_small_res2net", **{**THIN, "cardinality": 6})
