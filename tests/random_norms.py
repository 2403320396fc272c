"""Norms as training leaves them: fresh ones do nothing, and timm starts the last one of a residual branch at zero."""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


def random_norms(module: Module, weight: tuple[float, float] = (0.5, 1.5), spread: float = 0.2) -> Module:
    """The module in eval mode, its norms and layer scales drawn anew, the same every time.

    weight: range of the scales. spread: deviation of shifts and running means; variances are 0.5 to 1.5.
    """
    generator = torch.Generator().manual_seed(1)

    def uniform(values: torch.Tensor, low: float, high: float) -> None:
        values.data.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))

    def normal(values: torch.Tensor, deviation: float) -> None:
        values.data.copy_(deviation * torch.randn(values.shape, generator=generator))

    for part in module.modules():
        if isinstance(part, (_BatchNorm, nn.GroupNorm, nn.LayerNorm)) and part.weight is not None:
            uniform(part.weight, *weight)
            normal(part.bias, spread)
        if isinstance(part, _BatchNorm) and part.running_mean is not None:
            normal(part.running_mean, spread)
            uniform(part.running_var, 0.5, 1.5)
        if isinstance(getattr(part, "gamma", None), nn.Parameter):
            normal(part.gamma, 1.0)
    return module.eval()
