"""Networks that are not timm's: other inputs, code around the layers, wrappers, decoders that no rule knows."""

import threading
import types

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from staged import check, conv, stages
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from elastic_cnn import elasticize, scale_policy
from elastic_cnn.nn import ElasticConv2d
from elastic_cnn.policy.scores import block_info
from elastic_cnn.surgery import apply_surgery, describe_surgery, restore


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


def test_a_block_that_is_put_back_knows_its_neighbours_and_itself():
    network = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=3).eval()
    network.layer1[1].around = [network.layer1[0], {"self": network.layer1[1]}]
    network.layer1[1].bn1 = type("Gone", (nn.BatchNorm2d,), {"forward": lambda self, x: x.flip(1)})(64).eval()
    elastic = elasticize(network)
    assert "put back" in elastic.elastic_report.left["layer1.1"]
    assert elastic.layer1[1].around[0] is elastic.layer1[0] is not network.layer1[0]
    assert elastic.layer1[1].around[1]["self"] is elastic.layer1[1]
    base = restore(elastic)
    assert base.layer1[1].around[0] is base.layer1[0] is not elastic.layer1[0]


def test_a_network_is_walked_as_often_whether_few_blocks_are_converted_or_many():
    class Counted(nn.Sequential):
        walks = 0

        def named_modules(self, *args, **options):
            Counted.walks += 1
            return super().named_modules(*args, **options)

    def walks(depth):
        network = Counted(*stages(*(conv(8, 8) for _ in range(depth)))).eval()
        Counted.walks = 0
        elastic = elasticize(network)
        assert len(elastic.elastic_report.converted) == depth + 1
        restore(elastic)
        apply_surgery(network, describe_surgery(elastic))
        return Counted.walks

    assert walks(2) == walks(8)


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
