"""Whole networks: error against float64 beside the plain form's, what is reported, and what must not be touched."""

import copy
import functools

import pytest
import torch
from random_norms import random_norms
from torch import nn

from elastic_cnn import ElasticSpec, create_model, elasticize, optimize_for_inference, scale_policy, set_blend
from elastic_cnn.fast import compile_for_inference
from elastic_cnn.nn import ElasticBranches

torch_form = functools.partial(optimize_for_inference, native=False)

SMALL = {"layers": (2, 2, 1, 1), "channels": (16, 32, 48, 64), "stem_width": 8}
TINY_RESNEXT = {**SMALL, "cardinality": 4, "base_width": 16}
NETWORKS = {
    "resnext": ("resnext_small", {}),
    "resnext elastic": ("resnext_small_elastic", {}),
    "se resnext elastic": ("se_resnext50_elastic", TINY_RESNEXT),
    "resnet v1 elastic": ("resnet50_v1_selastic", SMALL),
    "densenet": ("densenet121", {"block_config": (2, 2, 2, 2), "growth_rate": 8}),
    "densenet elastic": ("densenet201_elastic", {"block_config": (2, 2, 2, 2), "growth_rate": 8}),
    "dla elastic": ("dla60x_elastic", {"channels": (8, 8, 16, 16, 32, 32), "cardinality": 4, "base_width": 32}),
    "dla root shortcut": ("dla102x_elastic", {"channels": (8, 8, 16, 16, 16, 32), "cardinality": 2, "base_width": 32}),
    "deeplab elastic": ("deeplabv3_resnext50_elastic", {**TINY_RESNEXT, "layers": (2, 1, 1, 3)}),
    "dla-up elastic": ("dla60x_elastic_seg", {"channels": (8, 8, 8, 16, 16, 16), "cardinality": 2, "base_width": 32}),
    "mobilenet": ("mobilenetv3_small_050", {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "repvgg": ("repvgg_a0", {}),
    "norm-free": ("nf_resnet26", {}),
    "same padding": ("tf_efficientnet_lite0", {}),
    "levit": ("levit_128s", {}),
    "hrnet": ("hrnet_w18_small", {}),
}
FIXED_SIZE = {"levit"}


def errors(plain: nn.Module, fast: nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """Relative errors of both against the plain network in float64."""
    with torch.no_grad():
        exact = copy.deepcopy(plain).double()(images.double())
        found = [float((network(images).double() - exact).norm() / exact.norm()) for network in (plain, fast)]
    return found[0], found[1]


def small(name: str, **more) -> nn.Module:
    model, arguments = NETWORKS[name]
    return random_norms(create_model(model, **arguments, **more))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_as_exact_as_their_plain_form(name):
    """At most twice the plain form's error, or ten roundings where the plain form is by luck nearly exact."""
    network = small(name)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    fast = torch_form(network.to(memory_format=torch.channels_last))
    sizes = [(224, 224)] if name in FIXED_SIZE else [(64, 64), (96, 64)] if name == "hrnet" else [(64, 96), (75, 49)]
    for size in sizes:
        plain_error, fast_error = errors(network, fast, torch.randn(2, 3, *size))
        assert fast_error <= max(2 * plain_error, 10 * torch.finfo(torch.float32).eps)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("resnet18", None),
        ("densenet121", None),
        ("dla34", None),
        ("efficientnet_b0", None),
        ("regnety_002", None),
        ("mobilenetv2_035", None),
        ("resnext_small", True),
    ],
)
def test_elasticized_networks(name, convolutions):
    network = random_norms(elasticize(create_model(name, num_classes=4), convolutions=convolutions))
    fast = torch_form(network)
    plain_error, fast_error = errors(network, fast, torch.randn(1, 3, 69, 84))
    assert fast_error <= max(2 * plain_error, 10 * torch.finfo(torch.float32).eps)
    left = fast.optimization_report.left.values()
    assert all("convolution directly before" in reason or "no faster form" in reason for reason in left)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    network = small("resnext elastic").to(dtype)
    fast = torch_form(network)
    plain_error, fast_error = errors(network, fast, torch.randn(2, 3, 64, 80, dtype=dtype))
    assert fast_error <= max(2 * plain_error, 10 * torch.finfo(dtype).eps)


def test_no_norm_is_left_where_all_follow_convolutions():
    for name in ("resnext", "resnext elastic", "se resnext elastic", "dla elastic", "deeplab elastic", "mobilenet"):
        fast = torch_form(small(name))
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fast.modules())
        assert not any(isinstance(module, ElasticBranches) for module in fast.modules())
        assert not fast.optimization_report.left


def test_the_report_names_what_is_left():
    fast = torch_form(small("densenet elastic"))
    report = fast.optimization_report
    assert report.left["features.denseblock1.denselayer1.norm1"] == "a norm without a convolution directly before it"
    assert report.folded["features.norm0"] == "features.conv0"
    assert report.rewritten["features.denseblock1.denselayer1"] == "dense layer"
    assert "dense layer" in str(report)
    assert "norm without a convolution" in str(report)


class Odd(nn.Module):
    """Norms that must not be folded: shared, of a map that is read twice or returned, without statistics."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(6))
        self.shared = nn.BatchNorm2d(4)
        self.twice = nn.BatchNorm2d(4)
        self.returned = nn.BatchNorm2d(4)
        self.batch_statistics = nn.BatchNorm2d(4, track_running_stats=False)
        self.unused = nn.BatchNorm2d(4)
        self.folds = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.shared(self.convs[1](self.shared(self.convs[0](x))))
        y = self.convs[2](x)
        x = self.twice(y) + y
        returned = self.convs[3](x)
        x = self.returned(returned)
        x = self.batch_statistics(self.convs[4](x))
        return self.folds(self.convs[5](x)), returned


def test_norms_that_must_not_be_folded():
    network = random_norms(Odd())
    x = torch.randn(2, 4, 5, 5)
    fast = torch_form(network, x)
    report = fast.optimization_report
    assert list(report.folded) == ["folds"]
    assert report.left == {
        "shared": "a norm that several layers share",
        "twice": "a norm whose layer's output also goes elsewhere",
        "returned": "a norm whose layer's output also goes elsewhere",
        "batch_statistics": "a norm without running statistics",
        "unused": "a norm that did not run",
    }
    with torch.no_grad():
        for got, want in zip(fast(x), network(x), strict=True):
            torch.testing.assert_close(got, want)


def test_hooks_keep_what_they_look_at():
    network = small("resnext elastic")
    seen = []
    branches = next(module for module in network.modules() if isinstance(module, ElasticBranches))
    branches.high.transform.get_submodule("act2").register_forward_hook(lambda *args: seen.append(args[2]))
    fast = torch_form(network)
    assert not seen  # nothing of the caller's ran
    left = [name for name, reason in fast.optimization_report.left.items() if "hooks" in reason]
    assert left == ["layer1.0.tail.bn3", "layer1.0"]
    with torch.no_grad():
        images = torch.randn(1, 3, 64, 64)
        fast(images)
        network(images)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blend", [0.0, 0.4])
def test_blended_blocks_keep_their_form(blend):
    network = small("resnext elastic")
    count = set_blend(network, blend)
    fast = torch_form(network)
    assert len([reason for reason in fast.optimization_report.left.values() if "blend" in reason]) == count
    plain_error, fast_error = errors(network, fast, torch.randn(2, 3, 64, 64))
    assert fast_error <= 2 * plain_error


def test_a_training_network_is_optimized_as_in_eval_mode():
    network = small("resnext elastic").train()
    fast = torch_form(network)
    assert network.training
    assert not fast.training
    assert "training mode" in str(fast.optimization_report)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), network.eval()(images), rtol=1e-4, atol=1e-5)


def test_a_list_of_features_stays_one():
    network = random_norms(create_model("resnext_small_elastic", features_only=True))
    fast = torch_form(network)
    images = torch.randn(1, 3, 70, 64)
    with torch.no_grad():
        for got, want in zip(fast(images), network(images), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_bad_input():
    network = small("resnext elastic")
    fast = torch_form(network)
    with pytest.raises(ValueError, match="optimized for inference already"):
        torch_form(fast)
    with pytest.raises(ValueError, match="take the scale policy from the network that it was made from"):
        scale_policy(fast, torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="does not run on the example of"):
        torch_form(network, torch.randn(1, 5, 64, 64))


def test_maps_stay_in_channels_last():
    fast = torch_form(elasticize(small("resnext"), ElasticSpec((1, 2), (0.25, 0.75))))
    formats = []
    for module in fast.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda *args: formats.append(args[2].is_contiguous(memory_format=torch.channels_last))
            )
    with torch.no_grad():
        fast(torch.randn(2, 3, 64, 64))
    assert formats
    assert all(formats)


def test_the_compiled_form_computes_the_same():
    """A network of one elastic block, since compilation takes long; frozen weights leave no parameter to pass."""
    block = elasticize(small("resnext")).layer1[0]
    network = nn.Sequential(nn.Conv2d(3, block.branches.high.transform[0].in_channels, 3), block).eval()
    images = torch.randn(2, 3, 17, 20)
    fast = torch_form(network, images)
    compiled = compile_for_inference(fast, dynamic=False)
    assert compiled.optimization_report is fast.optimization_report
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network(images), rtol=1e-4, atol=1e-5)
