"""Equation 5 against a slow computation that shares no code with it, and against the released code's numbers."""

import importlib.util
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from random_norms import random_norms
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

import elastic_cnn
from elastic_cnn.nn import ElasticBranches, ElasticSpec, convert_convolution
from elastic_cnn.policy import block_info, record_policy, scale_policy
from elastic_cnn.zoo.released import translate


def tiny(spec=None, **changes):
    """A narrow ResNeXt of four stages with random norms; three of its blocks are elastic."""
    arguments = {"layers": (2, 2, 1, 1), "cardinality": 4, "base_width": 32, "channels": (4, 8, 8, 8)}
    network = random_norms(ResNet(block=Bottleneck, num_classes=5, **{**arguments, **changes}))
    return elastic_cnn.elasticize(network.train(), spec)


def slow_branch_activation(branch, x, scale):
    """The branch's 1x1 and 3x3 with their norms, step by step in float64, from the weights alone."""

    def conv_norm_relu(x, conv, norm):
        y = F.conv2d(x, conv.weight.double(), None, 1, conv.padding, conv.dilation, conv.groups)
        mean, var = norm.running_mean.double()[:, None, None], norm.running_var.double()[:, None, None]
        y = (y - mean) / (var + norm.eps).sqrt()
        return (y * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]).clamp(min=0)

    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % scale, 0, -height % scale), value=torch.nan)
    x = x.unfold(2, scale, scale).unfold(3, scale, scale).nanmean((-1, -2))  # mean of what lies inside
    t = branch.transform
    return conv_norm_relu(conv_norm_relu(x, t.conv1, t.bn1), t.conv2, t.bn2)


def slow_policy(network, images):
    """Equation 5 from the inputs of the elastic blocks, one image and block at a time."""
    inputs = {}
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: inputs.__setitem__(name, args[0].double()))
        for name, module in network.named_modules()
        if isinstance(module, ElasticBranches)
    ]
    training = network.training
    with torch.no_grad():
        network.eval()(images)
    network.train(training)
    for handle in handles:
        handle.remove()
    table = np.zeros((len(images), len(inputs)))
    for column, (name, x) in enumerate(inputs.items()):
        block = network.get_submodule(name)
        for row in range(len(images)):
            means = []
            for branch in (block.high, *block.low):
                activation = slow_branch_activation(branch, x[row : row + 1], branch.scale)
                means.append(activation.sum().item() / activation.numel())
            table[row, column] = means[0] - sum(means[1:]) / len(means[1:])
    return table


@settings(max_examples=10, deadline=None)
@given(
    height=st.integers(33, 70),
    width=st.integers(33, 70),
    batch=st.integers(1, 3),
    scales=st.sampled_from([(1, 2), (1, 4), (1, 2, 4)]),
)
def test_equals_a_slow_computation(height, width, batch, scales):
    shares = (0.5, 0.5) if len(scales) == 2 else (0.5, 0.25, 0.25)
    torch.manual_seed(height * width)
    network = tiny(ElasticSpec(scales=scales, shares=shares)).eval()
    images = torch.randn(batch, 3, height, width)
    scores = scale_policy(network, images)
    assert scores.shape == (batch, 3)
    assert scores.dtype == torch.float32
    # float32 activations against float64 ones: 1e-6 of activations of order 1, with room for cancellation
    np.testing.assert_allclose(scores.numpy(), slow_policy(network, images), atol=2e-6)


def test_order_and_names_are_those_of_execution():
    network = tiny()
    images = torch.randn(1, 3, 64, 48)
    blocks = block_info(network, images)
    assert [block.name for block in blocks] == network.elastic_report.converted == ["layer1.0", "layer1.1", "layer2.1"]
    assert [block.stage for block in blocks] == [1, 1, 2]
    assert [(block.height, block.width) for block in blocks] == [(16, 12), (16, 12), (8, 6)]
    assert all(block.scales == (1, 2) for block in blocks)


def test_execution_order_wins_over_definition_order():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            inner = tiny()
            self.second, self.first = inner.layer1[1], inner.layer1[0]

        def forward(self, x):
            return self.second(self.first(x))

    network = Reversed()
    network.first.shortcut = None
    images = torch.randn(2, 64, 9, 9)
    network.first.shortcut = nn.Conv2d(64, 16, 1)
    defined, ran = block_info(network), block_info(network, images)
    assert [block.name for block in defined] == ["second", "first"]
    assert [block.name for block in ran] == ["first", "second"]
    alone = scale_policy(network.first, images)
    torch.testing.assert_close(scale_policy(network, images)[:, :1], alone)


def test_one_forward_gives_logits_and_scores():
    network = tiny().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        with record_policy(network) as policy:
            logits = network(images)
            scores = policy.scores()
            network(images[:1])
            assert policy.scores().shape == (1, 3)  # the latest forward
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)
    torch.testing.assert_close(scores, scale_policy(network, images), rtol=0, atol=0)


def test_training_modes_and_hooks_are_restored_also_after_an_error():
    network = tiny().train()
    network.layer1[0].branches.high.transform.bn1.eval()  # a frozen norm stays frozen
    before = {name: module.training for name, module in network.named_modules()}
    statistics = network.bn1.running_mean.clone()
    with pytest.raises(RuntimeError), record_policy(network) as policy:  # noqa: PT012
        assert not any(module.training for module in network.modules())
        network(torch.randn(2, 3, 40, 40))
        network(torch.randn(2, 5, 40, 40))  # five channels do not fit
    assert {name: module.training for name, module in network.named_modules()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network.bn1.running_mean, statistics)
    with pytest.raises(ValueError, match="no elastic block ran"):
        policy.scores()  # the failed call left none


def test_under_autocast_scores_are_float32_and_near():
    network = tiny().eval()
    images = torch.randn(2, 3, 64, 64)
    exact = scale_policy(network, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = scale_policy(network, images)
    assert rough.dtype == torch.float32
    # bfloat16 has 8 bits: activations of order 1 are off by 4e-3 each, their mean by less
    torch.testing.assert_close(rough, exact, rtol=0, atol=1e-2)
    assert not torch.equal(rough, exact)


def test_single_convolutions_and_chains_have_scores_by_hand():
    torch.manual_seed(0)
    conv = convert_convolution(nn.Conv2d(4, 6, 3, padding=1), ElasticSpec())
    images = torch.randn(2, 4, 8, 8)
    high, low = conv.high.transform(images[:, :2]), conv.low[0].transform(F.avg_pool2d(images[:, 2:], 2))
    expected = high.clamp(min=0).mean((1, 2, 3)) - low.clamp(min=0).mean((1, 2, 3))
    torch.testing.assert_close(scale_policy(nn.Sequential(conv).eval(), images)[:, 0], expected)

    network = elastic_cnn.elasticize(timm.create_model("repvgg_a0", num_classes=2)).eval()
    scores = scale_policy(network, torch.randn(1, 3, 64, 64))
    assert scores.shape == (1, len(network.elastic_report.converted))
    assert scores.isfinite().all()


def test_a_network_without_elastic_blocks_is_refused():
    with pytest.raises(ValueError, match="has no elastic block"):
        scale_policy(timm.create_model("resnext_small"), torch.zeros(1, 3, 64, 64))


class Calls(nn.Module):
    """Two elastic convolutions: one that is called twice, and one that never is or sees crops."""

    def __init__(self, crops=False):
        super().__init__()
        convs = [convert_convolution(nn.Conv2d(4, 4, 3, padding=1), ElasticSpec()) for _ in range(2)]
        self.twice, self.other = convs
        self.crops = crops

    def forward(self, x):
        y = self.twice(self.twice(x))
        return self.other(torch.cat([y, y])) if self.crops else y


def test_blocks_called_twice_have_the_mean_and_those_never_called_none():
    torch.manual_seed(0)
    network, images = Calls().eval(), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        first = scale_policy(nn.Sequential(network.twice), images)
        second = scale_policy(nn.Sequential(network.twice), network.twice(images))
    torch.testing.assert_close(scale_policy(network, images), (first + second) / 2)
    assert [block.name for block in block_info(network, images)] == ["twice"]
    assert [block.stage for block in block_info(network)] == [None, None]
    with pytest.raises(ValueError, match=r"did not see every image once a call .*: other|twice"):
        scale_policy(Calls(crops=True), images)


class Mapped(nn.Module):
    """Runs its convolutions on two crops by torch.vmap."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))

    def forward(self, x):
        return torch.vmap(self.body)(torch.stack([x, x.flip(3)])).mean(dim=0)


def test_blocks_under_vmap_are_refused_and_the_network_still_answers():
    network, images = elastic_cnn.elasticize(Mapped().eval()), torch.randn(2, 3, 16, 16)
    with record_policy(network) as policy, torch.no_grad():
        assert torch.equal(network(images), network(images))
        with pytest.raises(ValueError, match=r"these blocks run under torch\.vmap"):
            policy.scores()
    with pytest.raises(ValueError, match=r"these blocks run under torch\.vmap.*body"):
        scale_policy(network, images)


def test_stages_are_those_of_surgery_wherever_the_network_stands():
    network = elastic_cnn.elasticize(timm.create_model("convnext_atto", depths=(1, 1, 2, 1), dims=(16, 16, 32, 32)))
    assert [block.stage for block in block_info(network)] == [1, 2, 3, 3]
    assert {block.stage for block in block_info(nn.ModuleDict({"backbone": network}))} == {1, 2, 3}


def test_bad_calls_are_refused():
    network = tiny()
    with pytest.raises(ValueError, match="images must be a batch of float images"):
        scale_policy(network, torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match=r"takes C = 3, got shape .*; its channels come last"):
        scale_policy(network, torch.zeros(1, 64, 64, 3))
    with record_policy(network) as policy:
        with pytest.raises(ValueError, match="no elastic block ran yet"):
            policy.scores()
        with torch.no_grad():
            network.layer1[0](torch.zeros(1, 64, 8, 8))
            network.layer1[0](torch.zeros(1, 64, 8, 8))
        with pytest.raises(ValueError, match=r"ran more than once.*layer1\.0"):
            policy.scores()


@pytest.mark.parametrize(("name", "blocks"), [("resnext50_elastic", 17), ("dla60x_elastic", 11)])
def test_equals_the_released_code(shared, name, blocks):
    """Relative error at most 1e-5 of the largest score: both sides compute in float32."""
    folder = shared / "reference"
    spec = importlib.util.spec_from_file_location("reference_fill", folder / "reference_fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    network = elastic_cnn.create_model(name)
    released = fill.fill(json.loads((folder / f"{name}.json").read_text()))
    network.load_state_dict(translate(released, network).state)
    expected = np.load(folder / f"{name}.npz")["scale_policy_224x224"]
    scores = scale_policy(network, fill.images(2, 224, 224)).numpy()
    assert scores.shape == expected.shape == (2, blocks)
    assert np.abs(scores - expected).max() <= 1e-5 * np.abs(expected).max()
