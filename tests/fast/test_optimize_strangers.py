"""Networks that nobody here wrote: what looks like a layer and computes something else, forwards of their own, inputs
of every kind, hooks. The result gives the network's outputs, and the report says what was left."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm
from torchvision.models.feature_extraction import create_feature_extractor

from elastic_cnn import elasticize, optimize_for_inference
from elastic_cnn.fast import fold, optimize, optimize_for_training, training_ops
from elastic_cnn.fast.describe import BlockDescription, Unsupported, describe, families
from elastic_cnn.fast.training import why_plain
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.nn.compare import relative_error
from elastic_cnn.nn.example import Example

TOLERANCE = 1e-5  # of the largest output, for a few layers in float32; the faults below move outputs by 1e-2 to 2


def lively(network: nn.Module) -> nn.Module:
    """Eval mode, norms with statistics of no special value."""
    for norm in network.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return network.eval()


def conv_norm(conv: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(6))


class ActivatedNorm(nn.BatchNorm2d):
    def forward(self, x):
        return F.leaky_relu(super().forward(x), 0.1)


class Conv2d(nn.Conv2d):  # the very name of torch's
    def forward(self, x):
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class Attentive(Bottleneck):
    """Attention after the block, as many have written it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gate = nn.Conv2d(self.conv3.out_channels, 1, 1)

    def forward(self, x):
        y = super().forward(x)
        return y * torch.sigmoid(self.gate(y))


def resnet(block: type[nn.Module] = Bottleneck, **options) -> nn.Module:
    return ResNet(block, (2, 1, 1, 2), num_classes=3, channels=(8, 16, 16, 24), stem_width=8, **options)


class Walker(nn.Module):
    """Code that walks over the blocks and keeps the map of each."""

    def __init__(self):
        super().__init__()
        self.net = resnet()

    def forward(self, x):
        x, maps = self.net.maxpool(self.net.act1(self.net.bn1(self.net.conv1(x)))), []
        for stage in (self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4):
            for block in stage:
                x = block(x)
                maps.append(x)
        return maps


class Sequences(nn.Module):
    """Norms over the second dimension of (N, length, channels) after a linear layer, over channels after others."""

    def __init__(self):
        super().__init__()
        self.linear, self.over_length = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.conv, self.over_channels = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)
        self.last, self.over_features = nn.Linear(8, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.over_channels(self.conv(self.over_length(self.linear(x))))
        return self.over_features(self.last(x.mean(2)))


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = resnet(), nn.Linear(24 * 4 * 2 * 2, 3)

    def forward(self, x):
        return self.fc(self.body.forward_features(x).view(x.shape[0], -1))


class Listed(nn.Module):
    """Layers that a plain list, and what stands in it, holds too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.pairs = [(self.conv, {"norm": self.norm})]

    def forward(self, x):
        for conv, rest in self.pairs:
            x = rest["norm"](conv(x))
        return x


class ReadsWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight)


class Scaled(nn.Module):
    """Two inputs; the code asks for a value, which the meta device has not."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)

    def forward(self, image, scale=1.0):
        y = self.norm(self.conv(image)) * scale
        return y * 2 if y.mean().item() > 1e9 else y


def features() -> nn.Module:
    return create_feature_extractor(elasticize(resnet(cardinality=4, base_width=8)).eval(), ["layer2", "layer4"])


def torchlike(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output * 2


torchlike.__module__ = "transformers.utils.output_capturing"  # as a library's own hook


def hooked_by_a_library() -> nn.Module:
    network = conv_norm(nn.Conv2d(3, 6, 3))
    network[1].register_forward_hook(torchlike)
    return network


needs_kernels = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {load().reason}")
IMAGE = torch.randn(2, 3, 12, 12)
LARGE = torch.randn(1, 3, 64, 64)
# {case: (network, its example, a reason that the report gives, empty for none)}
CASES = {
    "a norm with an activation in it": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3), ActivatedNorm(6)), IMAGE, "a norm is ActivatedNorm"),
    "a convolution with its own arithmetic": (
        lambda: conv_norm(Conv2d(3, 6, 3)), IMAGE, "without a convolution directly before it"),
    "blocks with attention": (lambda: resnet(Attentive), LARGE, "not native: Attentive may compute something else"),
    "such blocks, elastic": (lambda: elasticize(resnet(Attentive), convolutions=True), LARGE, "Attentive may compute"),
    "blocks walked over": (Walker, LARGE, ""),
    "norms of sequences": (Sequences, torch.randn(3, 8, 8), "a norm without a convolution directly before it"),
    "a view of the last map": (Viewing, LARGE, "channels-last maps): RuntimeError"),
    "layers in plain lists": (Listed, IMAGE, ""),
    "a weight that is read elsewhere": (ReadsWeights, IMAGE, "weight is also read elsewhere"),
    "inputs by name": (Scaled, {"image": torch.randn(1, 4, 9, 9), "scale": torch.tensor(3.0)}, ""),
    "inputs in order": (Scaled, (torch.randn(1, 4, 9, 9), torch.tensor(3.0)), ""),
    "old spectral norm": (lambda: conv_norm(spectral_norm(nn.Conv2d(3, 6, 3))), IMAGE, "hooks look at it"),
    "a parametrised weight": (
        lambda: conv_norm(parametrizations.weight_norm(nn.Conv2d(3, 6, 3))), IMAGE, "without a convolution"),
    "a pruned weight": (
        lambda: conv_norm(prune.random_unstructured(nn.Conv2d(3, 6, 3), "weight", 0.5)), IMAGE, "hooks look at it"),
    "a graph of torch.fx": (features, LARGE, "without a convolution directly before it"),
    "a library's hook": (hooked_by_a_library, IMAGE, "hooks look at it"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).*:FutureWarning")
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_the_networks_own(case, verify):
    """Without the verification, too, where no memory format is changed that a view cannot take."""
    build, given, reason = CASES[case]
    options = {} if verify or build is not Viewing else {"channels_last": False, "native": False}
    torch.manual_seed(0)
    network, example = lively(build()), Example.of(given)
    network.requires_grad_(False)
    fast = optimize_for_inference(network, given, verify=verify, **options)
    with torch.no_grad():
        assert relative_error(example.call(fast), example.call(network)) < TOLERANCE
    left = fast.optimization_report.left.values()
    if not options and (ops.ready() or "Attentive" not in reason):  # said where the kernels run
        assert any(reason in why for why in left) if reason else not list(left)


def test_a_network_that_asks_for_values_needs_no_example():
    """It is measured on real tensors, with the channels that its first convolution has."""
    network = lively(Scaled()).requires_grad_(False)
    fast = optimize_for_inference(network)
    assert list(fast.optimization_report.folded) == ["norm"]
    x = torch.randn(1, 4, 11, 9)
    torch.testing.assert_close(fast(x), network(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(3, 3)), "lazy layers that never ran"),
        (nn.Sequential(nn.Linear(5, 5)), "pass what it takes as example="),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_optimized_is_a_sentence(network, message):
    with pytest.raises(ValueError, match=message):
        optimize_for_inference(network)


def test_what_cannot_be_copied_is_a_sentence():
    network = conv_norm(nn.Conv2d(3, 6, 3))
    network.lock = threading.Lock()
    with pytest.raises(ValueError, match="Sequential cannot be copied"):
        optimize_for_inference(network, IMAGE)


@needs_kernels
def test_hooks_stay_and_do_not_fire_meanwhile():
    network, seen = lively(resnet()), []
    network.layer2[0].conv2.register_forward_hook(lambda *_: seen.append("inner"))
    network.layer3.register_forward_pre_hook(lambda *_: seen.append("stage"))
    network.register_forward_hook(lambda *_: seen.append("network"))
    fast = optimize_for_inference(network, LARGE, native=True)  # by default the forms are timed, and one is chosen
    assert not seen
    assert "hooks" in fast.optimization_report.left["layer2.0"]
    with torch.no_grad():
        assert relative_error(fast(LARGE), network(LARGE)) < TOLERANCE
    assert seen == 2 * ["inner", "stage", "network"]


class TestVerification:
    """Faults put into the forms on purpose: they are put back, one by one, and named."""

    def test_folding(self, monkeypatch):
        original, seen = fold.scale_layer, []

        def faulty(change, layer, scale, shift):
            seen.append(layer)
            original(change, layer, scale * 1.1 if layer in seen[1::5][:2] else scale, shift)

        monkeypatch.setattr(fold, "scale_layer", faulty)
        network = lively(resnet())
        fast = optimize_for_inference(network, LARGE, native=False)
        back = {name: why for name, why in fast.optimization_report.left.items() if "put back" in why}
        assert list(back) == ["layer1.0.bn1", "layer1.1.bn2"]
        assert all("relative error" in why for why in back.values())
        with torch.no_grad():
            assert relative_error(fast(LARGE), network(LARGE)) < TOLERANCE
        seen.clear()
        assert relative_error(optimize_for_inference(network, LARGE, verify=False)(LARGE), network(LARGE)) > 1e-3

    @pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_kernels)])
    def test_blocks(self, monkeypatch, native):
        """A block that raises, and one that gives other numbers; the others keep their forms."""
        original = optimize.fold_block

        def faulty(block):
            form = original(block)
            if form is not None and block.module is blocks[0]:
                form.act = nn.GELU()
            if form is not None and block.module is blocks[1]:
                form.shortcut = nn.Flatten()
            return form

        network = lively(elasticize(resnet(cardinality=4, base_width=8)))
        blocks: list[nn.Module] = []
        copied = optimize.copy_module

        def remember(module):
            twin = copied(module)
            blocks[:] = [*twin.layer1, twin.layer3[0]]
            return twin

        monkeypatch.setattr(optimize, "copy_module", remember)
        monkeypatch.setattr(optimize, "fold_block", faulty)
        fast = optimize_for_inference(network, LARGE, native=native)
        back = [name for name, why in fast.optimization_report.left.items() if "put back" in why]
        assert back == ([] if native else ["layer1.0", "layer1.1"])  # the kernels take these as they were
        with torch.no_grad():
            assert relative_error(fast(LARGE), network(LARGE)) < TOLERANCE


def test_a_block_is_known_by_its_very_class_and_forward():
    block = Bottleneck(32, 8)
    assert len(describe(block).high.layers) == 3
    changed = copy.deepcopy(block)
    changed.forward = lambda x: x
    for other in (Attentive(32, 8), changed):
        with pytest.raises(Unsupported, match=r"may compute something else|forward was replaced"):
            describe(other)
    with pytest.raises(Unsupported, match="not a block that a form knows"):
        describe(nn.Linear(3, 3))


class Renamed(nn.Module):
    """A bottleneck under names of its own, as another library may have it."""

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(8)
        self.c, self.nc, self.relu = nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.nb(self.b(self.relu(self.na(self.a(x))))))
        return self.relu(self.nc(self.c(y)) + x)


def describe_renamed(block: Renamed) -> BlockDescription:
    layers = {"a": block.a, "na": block.na, "act1": block.relu, "b": block.b, "nb": block.nb, "act2": block.relu}
    branches = families.single({**layers, "c": block.c}.items())
    after = families.present([("nc", block.nc)])
    return BlockDescription("residual block", block, "map", branches, after=after, adds_input=True, act=block.relu)


def test_one_case_adds_a_family_to_the_forms(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, Renamed, describe_renamed)
    network, x = lively(nn.Sequential(Renamed(), Renamed())), torch.randn(2, 32, 9, 7)
    with torch.no_grad():
        wanted = network(x)
        if ops.ready():
            fast = optimize_for_inference(network, x, native=True)
            assert "2 blocks in 1 calls" in str(fast.optimization_report)
            assert relative_error(fast(x), wanted) < TOLERANCE
    if training_ops.unavailable():
        return
    plain, fused = (copy.deepcopy(network).to(memory_format=torch.channels_last).train() for _ in range(2))
    assert optimize_for_training(fused).fused == {"0": "Renamed", "1": "Renamed"}
    images = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fused(images), plain(images), rtol=1e-4, atol=1e-4)
    assert why_plain(fused) == {}
