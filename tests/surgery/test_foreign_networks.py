"""Networks that are not timm's: other inputs, layers that only look plain, weights that are computed, code around."""

import threading
import types

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, prune
from torchvision.models.feature_extraction import create_feature_extractor

from elastic_cnn import ElasticSpec, elasticize, optimize_for_inference, scale_policy, set_blend
from elastic_cnn.nn import ElasticConv2d, convert_convolution
from elastic_cnn.policy.scores import block_info
from elastic_cnn.surgery import apply_surgery, describe_surgery, restore


def conv(before: int, after: int, **options) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, **{"padding": 1, **options})


def stages(*middle: nn.Module, channels: int = 3) -> nn.Sequential:
    """Convolutions of two resolutions around the layers in question."""
    return nn.Sequential(conv(channels, 8), nn.ReLU(), *middle, conv(8, 8, stride=2), nn.ReLU(), conv(8, 8)).eval()


def check(network: nn.Module, *args: torch.Tensor, **options) -> nn.Module:
    """Elastic, and at blend 0 the original's function with its parameters; in one place, since it is what matters."""
    elastic = elasticize(network, **options)
    with torch.no_grad():
        expected = network(*args)
        assert not torch.allclose(elastic(*args), expected, rtol=1e-4)
        set_blend(elastic, 0)
        torch.testing.assert_close(elastic(*args), expected, rtol=1e-4, atol=1e-5)
        set_blend(elastic, 1)
    assert sum(p.numel() for p in elastic.parameters()) == sum(p.numel() for p in network.parameters())
    return elastic


@pytest.mark.parametrize("size", [(21, 30), (20, 33)])
@pytest.mark.parametrize("upsample", ["bilinear", "nearest", "trained"])
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Conv2d(8, 8, 3)],
        lambda: [nn.Conv2d(8, 8, (5, 1), padding=(1, 0), dilation=(2, 1))],
        lambda: [nn.Conv2d(8, 16, 7, groups=4), nn.Conv2d(16, 8, 1)],
        lambda: [nn.ReflectionPad2d(1), nn.Conv2d(8, 8, 3)],
        lambda: [nn.ZeroPad2d(2), nn.Conv2d(8, 8, 5, padding_mode="reflect")],
    ],
    ids=["3x3", "5x1 dilated", "7x7 grouped", "reflected", "zeros before"],
)
def test_convolutions_that_are_not_padded(layers, upsample, size):
    network = stages(*layers())
    x = torch.randn(2, 3, *size)
    if upsample == "trained":
        elastic = elasticize(network, ElasticSpec(upsample="trained"))
        assert elastic(x).shape == network(x).shape
        return
    elastic = check(network, x, spec=ElasticSpec(upsample=upsample))
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    assert elastic.elastic_report.converted == convolutions[:-2]  # the others: a stride, and the last stage
    torch.testing.assert_close(restore(elastic)(x), network(x))


@pytest.mark.parametrize(("kernel", "scale"), [(3, 2), (5, 2), (7, 4), (3, 4)])
def test_the_low_branch_of_an_unpadded_convolution_stands_where_the_high_one_does(kernel, scale):
    """On a slope, whose means and interpolation are the slope, both branches say the same away from the border."""
    layer = nn.Conv2d(2, 1, kernel, bias=False)
    nn.init.constant_(layer.weight, 1 / kernel**2)
    elastic = convert_convolution(layer, ElasticSpec(scales=(1, scale)))
    slope = (torch.arange(48.0)[:, None] + 3 * torch.arange(40.0)).expand(1, 2, 48, 40)
    low = elastic.low[0](slope[:, 1:])
    high = elastic.high(slope[:, :1])
    height, width = high.shape[-2:]
    middle = (..., slice(height // 2 - 2, height // 2 + 2), slice(width // 2 - 2, width // 2 + 2))
    torch.testing.assert_close(low[middle], high[middle])
    torch.testing.assert_close(elastic(slope)[middle], layer(slope)[middle])


def test_stages_of_a_network_without_padding():
    """A U-Net's: the maps that a stage's convolutions shrink belong together."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)),
    ).eval()
    report = check(network, torch.randn(1, 3, 68, 76)).elastic_report
    assert [block.stage for block in report.blocks] == [1, 1, 2, 2, 3, 3]
    assert report.converted == ["0", "2", "5", "7"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_what_follows_an_unpadded_convolution_folds_and_exports():
    network = stages(nn.Conv2d(8, 8, 5), nn.BatchNorm2d(8), nn.ReLU())
    network[3].running_mean.uniform_(-1, 1)
    elastic = elasticize(network)
    x = torch.randn(2, 3, 24, 31)
    fast = optimize_for_inference(elastic, example=x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    torch.testing.assert_close(fast(x), elastic(x), rtol=1e-4, atol=1e-5)
    dynamic = ({0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=16), 3: torch.export.Dim("w", min=16)},)
    program = torch.export.export(elastic, (x,), dynamic_shapes=dynamic).module()
    for other in (x, torch.randn(3, 3, 33, 26)):
        torch.testing.assert_close(program(other), elastic(other))
    maps = torch.randn(2, 8, 24, 31)
    torch.testing.assert_close(torch.jit.script(elastic[2])(maps), elastic[2](maps))


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=self.padding)


class Wrapped(nn.Conv2d):
    """A norm and an activation inside, as detectron2 has it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = nn.BatchNorm2d(self.out_channels)

    def forward(self, x):
        return F.relu(self.norm(super().forward(x)))


@pytest.mark.parametrize("base", [Standardized, Wrapped])
def test_a_subclass_called_conv2d_is_no_plain_convolution(base):
    network = stages(type("Conv2d", (base,), {})(8, 8, 3, padding=1))
    elastic = check(network, torch.randn(1, 3, 20, 20))
    assert elastic.elastic_report.converted == ["0"]
    assert "Conv2d of tests" in elastic.elastic_report.left["2"] or "is not a plain convolution" in str(
        elastic.elastic_report.left["2"]
    )


def computed(how: str) -> nn.Module:
    layer: nn.Module = conv(8, 8)
    if how == "weight norm":
        return parametrizations.weight_norm(layer)
    if how == "spectral norm":
        return parametrizations.spectral_norm(layer)
    if how == "old spectral norm":
        return nn.utils.spectral_norm(layer)
    prune.l1_unstructured(layer, "weight", 0.3)
    return layer


@pytest.mark.parametrize("how", ["weight norm", "spectral norm", "old spectral norm", "pruned"])
def test_computed_weights_are_left_in_layers_and_in_blocks(how):
    network = stages(computed(how)).eval()
    elastic = check(network, torch.randn(1, 3, 20, 20))
    assert "computed" in elastic.elastic_report.left["2"] or "computes" in elastic.elastic_report.left["2"]
    assert restore(elastic)(torch.ones(1, 3, 8, 8)).isfinite().all()
    block = timm.create_model("resnet18", layers=(2, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2)
    block.layer1[0].conv1 = computed(how)
    assert elasticize(block).elastic_report.converted == ["layer1.1"]


class Forward(nn.Module):
    """A network around three layers of one resolution that says how they are called."""

    def __init__(self, call):
        super().__init__()
        self.first, self.middle = conv(3, 8), conv(8, 8)
        self.down, self.last = conv(8, 8, stride=2), conv(8, 8)
        self.held = [self.middle]
        self.pair = {"of": (self.middle, 1)}
        self.call = call

    def forward(self, x):
        return self.last(self.down(self.call(self, F.relu(self.first(x)))))


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: net.held[0](x),
        lambda net, x: net.pair["of"][0](x),
        lambda net, x: net.middle(F.pad(x, [net.middle.kernel_size[0] // 2 - net.middle.padding[0]] * 4)),
    ],
    ids=["list", "dict", "attributes"],
)
def test_code_around_a_layer_finds_the_elastic_one(call):
    network = Forward(call).eval()
    elastic = check(network, torch.randn(1, 3, 20, 20))
    assert elastic.elastic_report.converted == ["first", "middle"]
    elastic.train()(torch.randn(1, 3, 20, 20)).sum().backward()
    assert all(p.grad is not None for p in elastic.parameters())


def test_what_would_not_be_reached_or_not_run_is_put_back():
    closed = Forward(lambda net, x: net.hidden.layer(x)).eval()
    closed.hidden = types.SimpleNamespace(layer=closed.middle)
    elastic = check(closed, torch.randn(1, 3, 20, 20), inplace=False)
    assert "put back: code that surgery cannot see" in elastic.elastic_report.left["middle"]
    assert elastic.hidden.layer is elastic.middle
    read = Forward(lambda net, x: net.middle(x.to(net.middle.weight.dtype))).eval()
    elastic = check(read, torch.randn(1, 3, 20, 20))
    assert "put back: divided, the network does not run (AttributeError" in elastic.elastic_report.left["middle"]
    assert type(elastic.middle) is nn.Conv2d


def test_a_block_that_computes_something_else_is_put_back():
    """A rule's block whose layer mixes channels in a way that no class tells: the comparison sees it."""
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=3)
    shuffled = type("Shuffled", (nn.BatchNorm2d,), {"forward": lambda self, x: nn.BatchNorm2d.forward(self, x.flip(1))})
    with torch.no_grad():
        network.layer1[1].bn1 = shuffled(64)
        network.layer1[1].bn1.weight.uniform_(0.5, 1.5)
    elastic = check(network.eval(), torch.randn(1, 3, 64, 64))
    assert "put back: divided, it changed the network's outputs" in elastic.elastic_report.left["layer1.1"]
    assert "layer1.0" in elastic.elastic_report.converted
    assert elastic.elastic_report.verified < 1e-4
    with torch.no_grad():  # as fresh networks start: now the block adds nothing to the outputs
        network.layer1[1].bn2.weight.zero_()
    hidden = elasticize(network)
    assert "changed the network's outputs" in hidden.elastic_report.left["layer1.1"]
    assert not hidden.layer1[1].bn2.weight.any()
    unseen = elasticize(network, verify=False)
    assert "layer1.1" in unseen.elastic_report.converted
    assert unseen.elastic_report.verified is None


def test_ties_and_weights_of_activations_are_kept():
    tied = stages(conv(8, 8), conv(8, 8))
    tied[3].weight = tied[2].weight
    elastic = check(tied, torch.randn(1, 3, 20, 20))
    assert elastic[3].weight is elastic[2].weight
    assert "shared with another layer" in elastic.elastic_report.left["2"]
    learned = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=3)
    learned.layer1[0].relu = nn.PReLU()
    elastic = check(learned.eval(), torch.randn(1, 3, 32, 32))
    assert "+2 parameters" in elastic.elastic_report.left["layer1.0"]


@pytest.mark.parametrize(
    ("network", "example", "args"),
    [
        (stages(channels=1), None, (torch.randn(2, 1, 28, 28),)),
        (timm.create_model("mobilenetv3_small_050", in_chans=4).eval(), None, (torch.randn(1, 4, 64, 64),)),
        (nn.Sequential(stages(channels=2), nn.Flatten(), nn.Linear(560, 3)), (2, 20, 14), (torch.randn(1, 2, 20, 14),)),
    ],
)
def test_other_inputs_are_measured_and_travel(network, example, args):
    elastic = check(network, *args, example=example)
    description = describe_surgery(elastic)
    if example is not None or args[0].shape[1] == 4:
        assert description["example"]["args"][0]["tensor"][1] == args[0].shape[1]
    again = apply_surgery(restore(elastic), description)
    assert describe_surgery(again) == description
    again.load_state_dict(elastic.state_dict())
    with torch.no_grad():
        assert torch.equal(again(*args), elastic(*args))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = stages()

    def forward(self, left, *, right, times=1):
        return (self.body(left) - self.body(right)) * times


def test_names_of_blocks_that_are_numbers_are_no_stages():
    network = stages(conv(8, 8))
    elastic = elasticize(network, {"2": {"shares": (0.25, 0.75)}})
    assert elastic.elastic_report.converted == ["2"]
    again = apply_surgery(stages(conv(8, 8)), describe_surgery(elastic))
    assert again.elastic_spec == elastic.elastic_spec == {"2": elastic.elastic_report.conversions["2"].spec}
    assert elasticize(network, {1: {"shares": (0.25, 0.75)}}).elastic_report.converted == ["0", "2"]


def test_several_inputs_and_numbers_read_on_the_way():
    network = TwoInputs().eval()
    with pytest.raises(ValueError, match=r"TwoInputs does not run .* pass what it takes as example="):
        elasticize(network)
    example = {"left": torch.randn(1, 3, 20, 20), "right": torch.randn(1, 3, 20, 20), "times": 2}
    elastic = elasticize(network, example=example)
    assert elastic.elastic_report.converted == ["body.0"]
    assert elastic.elastic_report.verified < 1e-4
    assert describe_surgery(elastic)["example"]["kwargs"]["times"] == {"value": 2}
    reads = Forward(lambda net, x: x * (1 + int(x.sum().item() > 0))).eval()
    assert elasticize(reads).elastic_report.converted == ["first"]


def test_hooks_move_with_their_block_and_do_not_fire_meanwhile():
    network = timm.create_model("resnet18", layers=(2, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2).eval()
    fired: list[str] = []
    handle = network.layer1[0].register_forward_hook(lambda *_: fired.append("block"))
    network.layer1[1].conv1.register_forward_hook(lambda *_: fired.append("layer"))
    network.layer1.register_forward_pre_hook(lambda *_: fired.append("stage"))
    elasticize(network, inplace=True)
    assert not fired
    assert network.elastic_report.converted == ["layer1.0"]
    assert "hooks hang on its layer conv1" in network.elastic_report.left["layer1.1"]
    network(torch.zeros(1, 3, 32, 32))
    assert fired == ["stage", "block", "layer"]
    handle.remove()
    single = stages(conv(8, 8))
    single[2].register_forward_hook(lambda *_: fired.append("single"))
    elasticize(single, inplace=True)(torch.zeros(1, 3, 20, 20))
    assert fired == ["stage", "block", "layer", "single"]
    network(torch.zeros(1, 3, 32, 32))
    assert fired.count("block") == 1


def test_frozen_norms_stay_frozen_there_and_back_in_half_precision_too():
    network = timm.create_model("resnet18", layers=(2, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    elastic = elasticize(network)
    assert elastic.layer1[0].training
    assert not any(m.training for m in elastic.modules() if isinstance(m, nn.BatchNorm2d))
    base = restore(elastic)
    assert [m.training for m in base.modules()] == [m.training for m in network.modules()]
    half = restore(elastic.half())
    assert {p.dtype for p in half.parameters()} == {torch.float16}
    assert all(torch.equal(a, b.half()) for a, b in zip(half.parameters(), network.parameters(), strict=True))


def test_an_elastic_network_inside_another_is_not_divided_again():
    inner = elasticize(timm.create_model("resnet18", layers=(2, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2))
    outer = nn.Sequential(nn.Identity(), inner.eval())
    with pytest.raises(ValueError, match="all that could be converted is elastic already"):
        elasticize(outer)
    wide = nn.Sequential(conv(3, 8), conv(8, 8), conv(8, 3), inner)
    elastic = check(wide, torch.randn(1, 3, 32, 32))
    assert all(not name.startswith("3.") for name in elastic.elastic_report.converted)


class Boxes(nn.Module):
    """YOLO's box decoder: a frozen convolution over bins; its axes are sides and anchors."""

    def __init__(self):
        super().__init__()
        self.body, self.head = stages(), conv(8, 64)
        self.bins = nn.Conv2d(16, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x):
        y = self.head(self.body(x))
        return self.bins(y.flatten(2).view(len(x), 4, 16, -1).transpose(2, 1).softmax(1))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
def test_layers_without_image_axes_and_other_convolutions_say_why():
    report = elasticize(Boxes()).elastic_report
    assert "has no image axes" in report.left["bins"]
    with pytest.raises(ValueError, match="runs over one axis"):
        elasticize(nn.Sequential(nn.Conv1d(3, 4, 3)))
    with pytest.raises(ValueError, match="runs over three axes"):
        elasticize(nn.Sequential(nn.Conv3d(3, 4, 3)))
    with pytest.raises(ValueError, match="scripted or traced network"):
        elasticize(torch.jit.trace(stages(), torch.zeros(1, 3, 8, 8)))
    even = elasticize(stages(nn.Conv2d(8, 8, 2), nn.Conv2d(8, 8, 3, padding=2))).elastic_report
    assert even.left["2"] == "is not padded to keep its map's size, and takes an odd number off it (1 x 1)"
    assert even.left["3"] == "pads more than its kernel takes: its map grows by 2 x 2"
    functional = type("Functional", (nn.Module,), {"forward": lambda self, x: F.conv2d(x, self.weight)})()
    functional.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
    with pytest.raises(ValueError, match="used by functions, which surgery cannot replace"):
        elasticize(functional)


def test_what_is_no_network_or_cannot_be_copied_is_said():
    with pytest.raises(TypeError, match=r"got the name 'resnet18': pass timm.create_model\('resnet18'\)"):
        elasticize("resnet18")
    with pytest.raises(TypeError, match="got NoneType"):
        elasticize(None)
    locked = stages()
    locked.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied.*drop it first"):
        elasticize(locked)
    with pytest.raises(ValueError, match="lazy layers that never ran"):
        elasticize(nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyConv2d(4, 3, padding=1)))


class Decoder(nn.Module):
    """A known encoder, and a decoder that no rule knows."""

    def __init__(self):
        super().__init__()
        self.encoder = timm.create_model("resnet18", layers=(2, 2, 1, 1), channels=(8, 8, 8, 8), features_only=True)
        self.neck, self.up, self.head = conv(8, 8), nn.Conv2d(8, 8, 1), conv(8, 2)
        self.pooled = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        features = self.encoder(x)
        y = self.neck(features[-1] + self.pooled(F.adaptive_avg_pool2d(features[-1], 2)).mean((2, 3), keepdim=True))
        y = self.up(F.interpolate(y, size=features[1].shape[-2:])) + features[1]
        return self.head(F.interpolate(y, scale_factor=4))


def test_what_no_rule_covers_is_converted_layer_by_layer_and_all_of_it_is_reported():
    network = Decoder().eval()
    elastic = check(network, torch.randn(1, 3, 64, 64))
    report = elastic.elastic_report
    assert {block.name: (block.kind, block.stage) for block in report.blocks if block.converted} == {
        "encoder.layer1.0": ("basic block", 1),
        "encoder.layer1.1": ("basic block", 1),
        "encoder.layer2.1": ("basic block", 2),
        "up": ("convolution", 1),  # at the resolution of the first stage
        "head": ("convolution", 1),  # at a higher one
    }
    assert report.left["neck"] == "in the last stage"
    assert report.left["encoder.conv1"]
    convolutions = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    named = [block.name for block in report.blocks]
    assert all(any(name == block or name.startswith(f"{block}.") for block in named) for name in convolutions)
    assert "single layers are elastic (2 convolution)" in str(report)
    rules_alone = elasticize(network, convolutions=False).elastic_report
    assert rules_alone.converted == [name for name in report.converted if name.startswith("encoder.")]
    by_stage = elasticize(network, {1: {"shares": (0.25, 0.75)}}).elastic_report
    assert "head" in by_stage.converted
    assert by_stage.left["encoder.layer2.1"] == "in a stage that was not asked for"
    again = apply_surgery(Decoder(), describe_surgery(elastic))
    assert again.elastic_report.stages == report.stages


def test_linear_layers_over_channels_are_convolutions():
    network = torchvision.models.convnext._convnext(
        [torchvision.models.convnext.CNBlockConfig(*size) for size in ((8, 16, 2), (16, None, 1))], 0.0, None, False,
        num_classes=3, layer_scale=1.0,
    ).eval()  # fmt: skip
    elastic = check(network, torch.randn(1, 3, 45, 64))
    assert {"features.1.0.block.0", "features.1.0.block.3", "features.1.0.block.5"} <= set(
        elastic.elastic_report.converted
    )
    assert all(torch.equal(a, b) for a, b in zip(restore(elastic).parameters(), network.parameters(), strict=True))


def test_wrapped_traced_and_compiled_networks():
    images = torch.randn(2, 3, 32, 32)
    network = timm.create_model("resnet18", layers=(2, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=2).eval()
    graph = check(torch.fx.symbolic_trace(stages(conv(8, 8))), images)
    extracted = create_feature_extractor(stages(conv(8, 8), nn.BatchNorm2d(8)), {"6": "features"}).eval()
    assert not any(module.training for module in elasticize(extracted).modules())
    assert sum(isinstance(module, ElasticConv2d) for module in graph.modules()) == 2
    with torch.no_grad():
        for block in network.layer1:
            block.bn2.weight.fill_(1)  # timm starts it at zero, which hides the block
    names = check(network, images).elastic_report.converted
    parallel = check(nn.DataParallel(network), images)
    compiled = check(torch.compile(network, backend="eager"), images)
    assert [name.partition(".")[2] for name in parallel.elastic_report.converted] == names
    assert compiled.elastic_report.converted == [f"_orig_mod.{name}" for name in names]
    assert [block.name for block in block_info(compiled, images)] == names
    torch.testing.assert_close(scale_policy(compiled, images), scale_policy(elasticize(network), images))
