"""Branches of equal resolution as one: their convolutions side by side."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from elastic_cnn.fast.describe.judge import is_any_norm, is_exactly


def merge(transforms: Sequence[nn.Sequential]) -> nn.Sequential | None:
    """One transform that computes the sum of `transforms` of the same input; None where none is known.

    The first convolution's outputs are put side by side, inner convolutions become more groups of one, and the last
    one takes all inputs, which sums.
    """
    if len(transforms) == 1:
        return transforms[0]
    merged: OrderedDict[str, nn.Module] = OrderedDict()
    names = list(transforms[0]._modules)
    if any(list(t._modules) != names for t in transforms):
        return None
    convolutions = [name for name in names if isinstance(transforms[0].get_submodule(name), nn.Conv2d)]
    for name in names:
        parts: list[Any] = [t.get_submodule(name) for t in transforms]
        if any(is_any_norm(part) for part in parts) or len({type(part) for part in parts}) > 1:
            return None
        if isinstance(parts[0], nn.Conv2d):
            whole = _merge_convolutions(parts, name == convolutions[0], name == convolutions[-1])
            if whole is None:
                return None
            merged[name] = whole
        elif list(parts[0].parameters()):
            return None
        else:
            merged[name] = parts[0]
    return nn.Sequential(merged) if len(convolutions) > 1 else None


def _merge_convolutions(convs: Sequence[Any], first: bool, last: bool) -> nn.Conv2d | None:
    if not all(is_exactly(c, nn.Conv2d) for c in convs):
        return None
    kinds = {(type(c), c.kernel_size, c.stride, c.padding, c.dilation, c.padding_mode) for c in convs}
    if len(kinds) > 1 or convs[0].padding_mode != "zeros":
        return None
    merged = copy.deepcopy(convs[0])
    biases = [c.bias for c in convs]
    if first or not last:
        sizes = {(c.in_channels // c.groups, c.out_channels // c.groups) for c in convs}
        if (first and any(c.groups > 1 for c in convs)) or (not first and len(sizes) > 1):
            return None
        merged.out_channels = sum(c.out_channels for c in convs)
        if not first:
            merged.in_channels, merged.groups = sum(c.in_channels for c in convs), sum(c.groups for c in convs)
        weight = torch.cat([c.weight.detach() for c in convs])
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([weight.new_zeros(c.out_channels) if c.bias is None else c.bias.detach() for c in convs])
    else:
        if any(c.groups > 1 for c in convs):
            return None
        merged.in_channels = sum(c.in_channels for c in convs)
        weight = torch.cat([c.weight.detach() for c in convs], 1)
        present = [b.detach() for b in biases if b is not None]
        bias = torch.stack(present).sum(0) if present else None
    merged.weight = nn.Parameter(weight, requires_grad=False)
    merged.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return merged
