"""Convolutions laid out for the processor once, without a compiler: oneDNN's fused operators called as they are.

In eager mode torch lets oneDNN rearrange a convolution's weight at every call, and runs the ReLU and the sum after it
as passes of their own. The operators that `torch.compile` emits do neither; these modules call them directly, so that
no compilation is needed and every size runs at once.
"""

import itertools
from collections import OrderedDict
from typing import Any

import timm.models.resnet as timm_resnet
import torch
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import clean, does_nothing
from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.residual_form import FoldedElasticBottleneck
from elastic_cnn.surgery.elasticize import replace_module


class PrepackedConv2d(nn.Module):
    """`conv` with its weight in oneDNN's layout: `(N, C_in, H, W)` float32 on the CPU -> `(N, C_out, H', W')`.

    relu: whether the output goes through a ReLU as it is written.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool = False):
        super().__init__()
        self.settings: tuple[Any, ...] = (tuple(conv.padding), tuple(conv.stride), tuple(conv.dilation), conv.groups)
        self.unary = "relu" if relu else "none"
        weight = conv.weight.detach().to_mkldnn()
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        # A plain attribute: the layout is opaque, so it can be neither copied to another device nor saved.
        self.packed: Tensor = reorder(weight, *self.settings)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone(), persistent=False)
        self.described = conv.extra_repr()

    def forward(self, x: Tensor) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise
        return run(x, self.packed, self.bias, *self.settings, self.unary, [], "")

    def add(self, x: Tensor, total: Tensor, ours: bool) -> Tensor:
        """`relu(conv(x) + total)`; written over `total` (N, C_out, H', W') where that is `ours` to take."""
        arguments: Any = (self.packed, self.bias, *self.settings, "add", 1.0, "relu", [], None)
        if ours and total.is_contiguous(memory_format=torch.channels_last):
            return torch.ops.mkldnn._convolution_pointwise_(total, x, *arguments)
        return torch.ops.mkldnn._convolution_pointwise.binary(x, total, *arguments)

    def extra_repr(self) -> str:
        return f"{self.described}, unary={self.unary!r}"


class PrepackedResidual(nn.Module):
    """A residual block whose last convolution adds the shortcut and the low branches, and takes the ReLU.

    inner: layers before the last convolution, last: that convolution; low, shortcut as in `FoldedElasticBottleneck`.
    """

    def __init__(self, high: nn.Sequential, low: nn.ModuleList, shortcut: nn.Module | None):
        super().__init__()
        layers = list(high.named_children())
        self.inner = pack_sequential(nn.Sequential(OrderedDict(layers[:-1])))
        last: Any = layers[-1][1]
        self.last = PrepackedConv2d(last)
        self.low = low
        self.shortcut = shortcut

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        inner = self.inner(x)
        project = shortcut is None and self.shortcut is not None
        start: Tensor = self.shortcut(x) if project else x if shortcut is None else shortcut  # type: ignore[misc]
        total = start  # (N, C_out, H, W); the caller's own tensor as long as nothing is added to it
        for branch in self.low:
            total = branch(x, start.shape[-2], start.shape[-1]) + total
        return self.last.add(inner, total, ours=project or total is not start)


def can_prepack(module: nn.Module) -> bool:
    """Whether `module` is a plain convolution that oneDNN's operators compute here."""
    return (
        type(module) is nn.Conv2d
        and torch.backends.mkldnn.is_available()
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and not has_hooks(module)
    )


def pack_sequential(layers: nn.Sequential) -> nn.Sequential:
    """`layers` with its convolutions packed, each taking in the ReLU right after it, in place."""
    children = list(layers.named_children())
    for (name, layer), (next_name, following) in itertools.pairwise([*children, ("", nn.Identity())]):
        if can_prepack(layer):
            relu = type(following) is nn.ReLU and not has_hooks(following)
            layers._modules[name] = PrepackedConv2d(layer, relu)  # type: ignore[arg-type]
            if relu:
                layers._modules[next_name] = nn.Identity()
    return layers


def prepack_convolutions(network: nn.Module) -> tuple[nn.Module, int]:
    """`network` (an optimized one, changed in place but for its root) with residual blocks and convolutions packed; how
    many convolutions were."""
    network = _pack_blocks(network)
    for module in list(network.modules()):
        if type(module) is nn.Sequential:
            pack_sequential(module)
    for module in [module for module in network.modules() if can_prepack(module)]:
        replace_module(network, module, PrepackedConv2d(module).eval())  # type: ignore[arg-type]
    return network, sum(isinstance(module, PrepackedConv2d) for module in network.modules())


def _pack_blocks(network: nn.Module) -> nn.Module:
    for block in list(network.modules()):
        form = _packed_block(block)
        if form is not None:
            form.eval()
            if block is network:
                return form
            replace_module(network, block, form)
    return network


def _packed_block(block: Any) -> PrepackedResidual | None:
    if any(has_hooks(module) for module in block.modules()):
        return None
    if type(block) is FoldedElasticBottleneck:
        high, low, shortcut, act = block.high, block.low, block.shortcut, block.act
    elif type(block) in (timm_resnet.Bottleneck, timm_resnet.BasicBlock):
        parts = clean(block)
        names = [name for name in ("conv1", "act1", "conv2", "act2", "aa", "conv3") if hasattr(parts, name)]
        last_act = "act3" if type(block) is timm_resnet.Bottleneck else "act2"
        names = [name for name in names if name != last_act]
        if {name for name, _ in parts.named_children()} - {*names, "downsample", last_act}:
            return None
        high, low = nn.Sequential(OrderedDict((name, getattr(parts, name)) for name in names)), nn.ModuleList()
        shortcut, act = (None if does_nothing(block.downsample) else block.downsample), getattr(block, last_act)
    else:
        return None
    last = list(high.children())[-1]
    if type(act) is not nn.ReLU or not can_prepack(last):
        return None
    for branch in low:
        pack_sequential(branch.transform)  # type: ignore[arg-type]
    return PrepackedResidual(high, low, shortcut)
