"""Divide trained layers over branches: every number of the layer goes to exactly one branch.

A convolution is divided along its output channels (`divide_outputs`), along its input channels (`divide_inputs`: the
branches' outputs then sum to the whole layer's) or, where it is grouped, along its groups, which does both at once.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn


class CannotDivide(ValueError):
    """A layer cannot be divided as asked; the message says why."""


# Convolutions whose arithmetic is known, by their very class: a subclass of whatever name may compute something else.
_PLAIN = ("torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame")
# Their effective weight is normalised over each output's inputs: only their outputs (or groups) can be divided.
_STANDARDIZED = tuple(
    f"timm.layers.std_conv.{name}" for name in ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
)


def _class_path(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether it is torch's own 2-D convolution, or timm's that pads as TensorFlow does."""
    return _class_path(module) in _PLAIN


def is_standardized_convolution(module: nn.Module) -> bool:
    """Whether it is one of timm's convolutions with a standardised weight."""
    return _class_path(module) in _STANDARDIZED


def require_convolution(module: nn.Module, *, whole_inputs: bool = True) -> None:
    """`CannotDivide` unless it is a 2-D convolution whose arithmetic is known, on real numbers (torch resamples no
    complex maps); without `whole_inputs`, one whose weight may also be divided along its inputs."""
    if isinstance(weight := module._parameters.get("weight"), nn.Parameter) and weight.is_complex():
        raise CannotDivide("its weight is complex, and complex maps cannot be resampled")
    if is_plain_convolution(module) or (whole_inputs and is_standardized_convolution(module)):
        return
    kind = type(module).__name__
    if is_standardized_convolution(module):
        raise CannotDivide(f"{kind} standardises its weight over all inputs, which cannot be divided")
    where = "" if kind != "Conv2d" else f" of {type(module).__module__}"
    raise CannotDivide(f"{kind}{where} is not a plain convolution")


def divide_count(count: int, shares: Sequence[float], what: str = "channels") -> list[int]:
    """Whole numbers that sum to `count`, near `count * share`, each at least one. `CannotDivide` where none exist."""
    if count < len(shares):
        raise CannotDivide(f"{count} {what} cannot be divided over {len(shares)} branches")
    exact = [count * share for share in shares]
    parts = [max(1, int(value + 1e-9)) for value in exact]
    while sum(parts) < count:  # the largest remainder takes the next one; the first branch where they tie
        parts[max(range(len(parts)), key=lambda i: (exact[i] - parts[i], -i))] += 1
    while sum(parts) > count:
        parts[max(range(len(parts)), key=lambda i: (parts[i] > 1, parts[i] - exact[i]))] -= 1
    return parts


def _take(module: nn.Module, index: slice, dim: int, *names: str) -> None:
    """Replace the named parameters and buffers of `module` by a copy of the part `index` along `dim`."""
    for name in names:
        tensor = getattr(module, name, None)
        if tensor is None:
            continue
        part = tensor.detach()[(slice(None),) * dim + (index,)].clone()
        setattr(module, name, nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part)


def _slices(parts: Sequence[int]) -> list[slice]:
    stops = [sum(parts[: i + 1]) for i in range(len(parts))]
    return [slice(stop - part, stop) for part, stop in zip(parts, stops, strict=True)]


def divide_outputs(conv: nn.Conv2d, parts: Sequence[int]) -> list[nn.Conv2d]:
    """Convolutions from all inputs to `parts[i]` outputs each; `conv` must not be grouped."""
    require_convolution(conv)
    if conv.groups != 1:
        raise CannotDivide(f"a convolution of {conv.groups} groups is divided along its groups, not its outputs")
    if sum(parts) != conv.out_channels:
        raise CannotDivide(f"{conv.out_channels} output channels are not {list(parts)}")
    pieces = []
    for index, part in zip(_slices(parts), parts, strict=True):
        piece = copy.deepcopy(conv)
        piece.out_channels = part
        _take(piece, index, 0, "weight", "bias", "gain")
        pieces.append(piece)
    return pieces


def divide_inputs(conv: nn.Conv2d, parts: Sequence[int]) -> list[nn.Conv2d]:
    """Convolutions from `parts[i]` inputs to all outputs, which sum to the whole; the first keeps the bias."""
    require_convolution(conv, whole_inputs=False)
    if conv.groups != 1:
        raise CannotDivide(f"a convolution of {conv.groups} groups is divided along its groups, not its inputs")
    if sum(parts) != conv.in_channels:
        raise CannotDivide(f"{conv.in_channels} input channels are not {list(parts)}")
    pieces = []
    for i, (index, part) in enumerate(zip(_slices(parts), parts, strict=True)):
        piece = copy.deepcopy(conv)
        piece.in_channels = part
        _take(piece, index, 1, "weight")
        if i > 0 and piece.bias is not None:
            piece.bias = None
        pieces.append(piece)
    return pieces


def divide_groups(conv: nn.Conv2d, groups: Sequence[int]) -> list[nn.Conv2d]:
    """Convolutions of `groups[i]` groups each, with the inputs and outputs of those groups."""
    require_convolution(conv)
    if sum(groups) != conv.groups:
        raise CannotDivide(f"{conv.groups} groups are not {list(groups)}")
    in_each, out_each = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    pieces = []
    for index, part in zip(_slices([g * out_each for g in groups]), groups, strict=True):
        piece = copy.deepcopy(conv)
        piece.in_channels, piece.out_channels, piece.groups = part * in_each, part * out_each, part
        _take(piece, index, 0, "weight", "bias", "gain")
        pieces.append(piece)
    return pieces


def divide_norm(norm: nn.Module, parts: Sequence[int]) -> list[nn.Module]:
    """A per-channel norm for each part of the channels; a group norm where the parts fall on its groups."""
    if isinstance(norm, nn.Identity):
        return [nn.Identity() for _ in parts]
    if isinstance(norm, nn.GroupNorm):
        return _divide_group_norm(norm, parts)
    if not _is_per_channel_norm(norm):
        raise CannotDivide(f"{type(norm).__name__} mixes channels: its statistics change when they are divided")
    pieces = []
    for index, part in zip(_slices(parts), parts, strict=True):
        piece: Any = copy.deepcopy(norm)
        if hasattr(piece, "num_features"):
            piece.num_features = part
        _take(piece, index, 0, "weight", "bias", "running_mean", "running_var")
        pieces.append(piece)
    return pieces


def _is_per_channel_norm(norm: nn.Module) -> bool:
    """Batch and instance norms, frozen and synchronised ones and timm's fused with an activation included."""
    kinds = (nn.modules.batchnorm._NormBase,)
    return isinstance(norm, kinds) or type(norm).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d")


def _divide_group_norm(norm: nn.GroupNorm, parts: Sequence[int]) -> list[nn.Module]:
    each = norm.num_channels // norm.num_groups
    if any(part % each for part in parts):
        raise CannotDivide(f"parts {list(parts)} do not fall on the group norm's groups of {each} channels")
    pieces: list[nn.Module] = []
    for index, part in zip(_slices(parts), parts, strict=True):
        piece = copy.deepcopy(norm)
        piece.num_channels, piece.num_groups = part, part // each
        _take(piece, index, 0, "weight", "bias")
        pieces.append(piece)
    return pieces
