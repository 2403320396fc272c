"""Networks that hold tensors of five dimensions beside 2-D layers: their weights cannot be laid out channels last."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from elastic_cnn import convert, elasticize, optimize_for_inference, set_blend
from elastic_cnn.nn import channels_last


class Chosen(nn.Module):
    """The kernel of each image is a mix of three (conditional convolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(3, 8, 8, 3, 3) * 0.1)
        self.router = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        mix = self.router(x.mean((2, 3))).sigmoid()
        kernels = torch.einsum("be,eoihw->boihw", mix, self.kernels).flatten(0, 1)
        return functional.conv2d(x.flatten(0, 1)[None], kernels, padding=1, groups=len(x)).view_as(x)


class Deep(nn.Module):
    """A 3-D layer over channels as depth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, None])[:, 0]


def network(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    plain = [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *plain, middle, nn.MaxPool2d(2), *copy.deepcopy(plain), *head)


@pytest.mark.parametrize("middle", [Chosen, Deep])
def test_they_are_made_fast_and_converted(middle):
    base = network(middle()).eval()
    images = torch.randn(2, 3, 32, 32)
    elastic = elasticize(base)
    with torch.no_grad():
        set_blend(elastic, 0.0)
        torch.testing.assert_close(elastic(images), base(images), atol=1e-5, rtol=1e-4)
        set_blend(elastic, 1.0)
        for one in (base, elastic):
            fast = optimize_for_inference(one, images)
            torch.testing.assert_close(fast(images), one(images), atol=1e-5, rtol=1e-4)
        answers = convert(base, torch.randn(8, 3, 32, 32))(images)
    assert answers.isfinite().all()


def test_only_tensors_of_four_dimensions_move():
    base = network(Chosen())
    before = {name: value.clone() for name, value in base.state_dict().items()}
    assert channels_last(base) is base
    assert base[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert base[5].kernels.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
