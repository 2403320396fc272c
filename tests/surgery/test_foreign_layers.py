"""Layers that are not timm's: without padding, that only look plain, whose weights are computed or shared."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from staged import check, conv, stages
from torch import nn
from torch.nn.utils import parametrizations, prune

from elastic_cnn import ElasticSpec, elasticize, optimize_for_inference
from elastic_cnn.nn import convert_convolution
from elastic_cnn.surgery import restore


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


def test_complex_convolutions_are_left():
    """At blend 0 one would compute the same; its maps could not be brought to half the resolution."""

    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.complex = nn.Conv2d(3, 8, 3, padding=1, dtype=torch.complex64)
            self.real = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.real(self.complex(x.to(torch.complex64)).abs())

    elastic: Any = elasticize(Complex(), example=(3, 32, 32))
    assert list(elastic.elastic_report.conversions) == ["real"]
    assert "complex" in str(elastic.elastic_report)
    assert elastic(torch.randn(1, 3, 32, 32)).isfinite().all()
