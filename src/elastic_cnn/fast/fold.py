"""Fold norms with fixed statistics into the layer before them.

In eval mode a batch norm is `y = scale * x + shift`, one scale and shift a channel, so a convolution before it can take
both into its weight and bias. The folding is done in float64 and rounded once.
"""

from typing import Any

import torch
from timm.layers import FrozenBatchNormAct2d, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from elastic_cnn.fast.flow import follow, has_hooks
from elastic_cnn.fast.report import OptimizationReport
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.surgery.elasticize import replace_module

FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)
CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv2dSame", "Conv3d", "Linear", "ConvTranspose2d", "BakedConv2dSame")
STANDARDIZED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)


def is_norm(module: nn.Module) -> bool:
    """Batch norms of every kind, timm's fused with an activation and frozen ones included."""
    return isinstance(module, (nn.modules.batchnorm._BatchNorm, *FROZEN))


def is_producer(module: nn.Module) -> bool:
    """Layers that are linear in each output channel's weights and whose arithmetic is known here."""
    return type(module).__name__ in CONVOLUTIONS or isinstance(module, ElasticBranches)


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    """`(scale, shift)`, float64 of shape (C,), of a norm in eval mode."""
    variance, mean = norm.running_var.double(), norm.running_mean.double()
    scale = torch.rsqrt(variance + norm.eps)
    if getattr(norm, "weight", None) is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    if getattr(norm, "bias", None) is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def scale_outputs(layer: Any, scale: Tensor, shift: Tensor | None) -> None:
    """Let `layer` compute `scale * layer(x) + shift` (shift None: none), in place."""
    weight = layer.weight.detach()
    shape = [-1] + [1] * (weight.ndim - 1)
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        each = weight.shape[1]
        factors = scale.view(layer.groups, 1, each, 1, 1)
        folded = weight.double().view(layer.groups, -1, *weight.shape[1:]) * factors
        layer.weight = _parameter(folded.view(weight.shape), weight)
    else:
        layer.weight = _parameter(weight.double() * scale.view(shape), weight)
    if layer.bias is not None:
        bias = layer.bias.detach().double() * scale
        layer.bias = _parameter(bias if shift is None else bias + shift, weight)
    elif shift is not None:
        layer.bias = _parameter(shift, weight)


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)


def concatenates(branches: ElasticBranches) -> bool:
    """Whether the branches' outputs stand side by side rather than summed."""
    return bool(getattr(branches, "concatenates", False))


def last_layer(branch: Any) -> Any:
    """The convolution that ends a branch's transform."""
    return list(branch.transform.children())[-1]


def scale_branches(branches: ElasticBranches, scale: Tensor, shift: Tensor | None) -> None:
    """Let Equation 3's sum be multiplied by `scale` and moved by `shift`, in place.

    Every upsampling is linear in each channel, so each branch's last convolution takes the scale. The shift goes to the
    first branch; where the branches' outputs are concatenated, each takes its part of both, which needs a shift
    that passes through the upsampling unchanged (`cannot_take` asks).
    """
    members: list[Any] = [branches.high, *branches.low]
    if concatenates(branches):
        sizes = [last_layer(branch).out_channels for branch in members]
        shifts = [None] * len(members) if shift is None else list(shift.split(sizes))
        for branch, s, b in zip(members, scale.split(sizes), shifts, strict=True):
            scale_outputs(last_layer(branch), s, b)
        return
    for i, branch in enumerate(members):
        scale_outputs(last_layer(branch), scale, shift if i == 0 else None)


def cannot_take(producer: nn.Module, norm: Any) -> str:
    """Why `producer` cannot take `norm` in; empty where it can."""
    if getattr(norm, "running_mean", None) is None or getattr(norm, "running_var", None) is None:
        return "a norm without running statistics"
    if has_hooks(norm) or has_hooks(producer) or any(has_hooks(part) for part in producer.modules()):
        return "hooks look at it"
    if isinstance(producer, ElasticBranches):
        members: list[Any] = [producer.high, *producer.low]
        if any(type(last_layer(branch)).__name__ not in CONVOLUTIONS for branch in members):
            return "a branch ends in a layer whose arithmetic is not known here"
        trained = [branch for branch in members if hasattr(branch.up, "weight")]
        if trained and concatenates(producer):
            return "a trained upsampling changes a constant"
    if isinstance(producer, nn.Linear) and not isinstance(norm, nn.BatchNorm1d):
        return "a norm over another dimension than the linear layer's outputs"
    return ""


def what_remains(norm: Any) -> nn.Module:
    """What a norm does besides scale and shift: timm's fused activation and drop."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    kept = [part for part in parts if part is not None and not isinstance(part, nn.Identity)]
    if not kept:
        return nn.Identity()
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def bake_standardized(network: nn.Module) -> int:
    """Give convolutions that standardise their weight at each call the standardised weight, in place; how many."""
    found = [module for module in network.modules() if type(module) in STANDARDIZED and not has_hooks(module)]
    for module in found:
        replace_module(network, module, _baked(module))
    return len(found)


class BakedConv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`, by the size of its input."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))
        return super().forward(pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation)))


def _baked(conv: Any) -> nn.Conv2d:
    gain = (conv.gain.detach().double() * conv.scale).view(-1) if hasattr(conv, "gain") else None
    flat = conv.weight.detach().double().reshape(1, conv.out_channels, -1)
    weight = nn.functional.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=conv.eps)
    same = getattr(conv, "same_pad", False)
    baked = (BakedConv2dSame if same else nn.Conv2d)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        0 if same else conv.padding,
        conv.dilation,
        conv.groups,
        bias=conv.bias is not None,
        device="meta",
        dtype=conv.weight.dtype,
    )
    baked.weight = _parameter(weight.reshape_as(conv.weight), conv.weight)
    if conv.bias is not None:
        baked.bias = _parameter(conv.bias.detach(), conv.weight)
    return baked


@torch.no_grad()
def fold_norms(network: nn.Module, example: list[Tensor], report: OptimizationReport) -> None:
    """Fold every norm that can be folded, in place; `report` gets what was and what was not, with reasons."""
    flow = follow(network, is_producer, is_norm, example)
    report.left.update(flow.reasons)
    for name, producer_name in flow.follows.items():
        norm, producer = network.get_submodule(name), network.get_submodule(producer_name)
        obstacle = cannot_take(producer, norm)
        if obstacle:
            report.left[name] = obstacle
            continue
        scale, shift = affine(norm)
        if isinstance(producer, ElasticBranches):
            scale_branches(producer, scale, shift)
        else:
            scale_outputs(producer, scale, shift)
        replace_module(network, norm, what_remains(norm))
        report.folded[name] = producer_name
