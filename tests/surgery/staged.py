"""Small networks around layers in question, and what has to hold of them when they are made elastic."""

import torch
from torch import nn

from elastic_cnn import elasticize, set_blend


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
