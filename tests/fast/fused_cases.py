"""Blocks that have a training form, and what one pass through them gives."""

import copy

import torch
from random_norms import random_norms
from timm.models.dla import DlaBottleneck
from timm.models.resnet import Bottleneck, downsample_conv
from torch import nn
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

from elastic_cnn import ElasticSpec
from elastic_cnn.fast import optimize_for_training
from elastic_cnn.surgery.rules import find_rule


def residual(width: int = 8, groups: int = 2, stride: int = 1, grow: int = 1, **options) -> nn.Module:
    """A grouped bottleneck of timm's, with a projected shortcut where it changes size or channels."""
    into, out = 4 * width // grow, 4 * width
    shortcut = downsample_conv(into, out, 1, stride) if stride > 1 or grow > 1 else None
    return Bottleneck(into, width, stride, shortcut, cardinality=groups, base_width=64 // groups, **options)


def elastic(block: nn.Module, spec: ElasticSpec = ElasticSpec()) -> nn.Module:  # noqa: B008 (frozen)
    return find_rule(block).convert(block, spec)


BLOCKS = {
    "bottleneck": residual,
    "strided": lambda: residual(stride=2, grow=2),
    "dense 3x3": lambda: residual(groups=1),
    "se": lambda: residual(attn_layer="se"),
    "torchvision": lambda: TorchvisionBottleneck(32, 8, groups=2, base_width=32),
    "dla": lambda: DlaBottleneck(12, 12, cardinality=3, base_width=32),
    "elastic": lambda: elastic(residual()),
    "elastic, projected": lambda: elastic(residual(grow=2)),
    "elastic, uneven": lambda: elastic(residual(width=12, groups=4), ElasticSpec(shares=(0.75, 0.25))),
    "elastic, se": lambda: elastic(residual(attn_layer="se")),
    "elastic dla": lambda: elastic(DlaBottleneck(12, 12, cardinality=4, base_width=32)),
    "norm and relu": lambda: nn.Sequential(nn.Conv2d(5, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU()),
    "norm": lambda: nn.Sequential(nn.Conv2d(5, 7, 1, bias=False), nn.BatchNorm2d(7, momentum=None)),
}


def lively(module: nn.Module) -> nn.Module:
    """Norms with weights, biases and running statistics of no special value, channels_last."""
    random_norms(module, weight=(-1, 1.5), spread=0.5)
    return module.to(memory_format=torch.channels_last).train()


def maps(block: nn.Module, batch: int, height: int, width: int, dtype=torch.float32) -> torch.Tensor:
    first = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
    x = torch.randn(batch, first.in_channels, height, width, dtype=dtype) + 0.3
    return x.contiguous(memory_format=torch.channels_last)


def outcome(block: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, all gradients and all buffers after one forward and backward pass with a fixed random loss."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    (y * weights).sum().backward()
    gradients = {f"grad {name}": p.grad for name, p in block.named_parameters()}
    return {"output": y.detach(), "grad input": x.grad, **gradients, **dict(block.named_buffers())}


def assert_near(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` of each tensor's largest number (at least 1: gradients of norms' inputs may vanish)."""
    assert one.keys() == two.keys()
    for name, a in one.items():
        b = two[name].to(a.dtype)
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max())), name


def assert_gradients_where_wanted(plain: nn.Module, height: int, width: int, of_input: bool, tolerance: float) -> None:
    """Float64: the training form gives the gradients of `plain`, and none where a parameter or the input wants none."""
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    x, results = maps(plain, 2, height, width, torch.float64), []
    for block in (plain, fused):
        own = x.clone(memory_format=torch.preserve_format).requires_grad_(of_input)
        block(own).pow(2).sum().backward()
        results.append({name: p.grad for name, p in block.named_parameters()} | {"input": own.grad})
    for key, gradient in results[0].items():
        assert (gradient is None) == (results[1][key] is None), key
        if gradient is not None:
            torch.testing.assert_close(results[1][key], gradient, rtol=tolerance, atol=tolerance)
