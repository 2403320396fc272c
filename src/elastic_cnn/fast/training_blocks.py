"""Blocks in their training form: the very modules of the network, computing in fewer passes over memory.

A block takes the form by a change of its class to a subclass (`training_class`), so that it holds the same
parameters, buffers and children under the same names, and remains an instance of what it was. At each call it asks
whether the fused passes may run; where not, it computes as its base class does and keeps the reason in `plain_because`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.models.dla import DlaRoot
from torch import Tensor, nn

from elastic_cnn.fast import training_ops
from elastic_cnn.fast.describe import BlockDescription, BranchDescription, Unsupported, describe
from elastic_cnn.fast.describe.judge import (
    is_absent,
    is_exactly,
    require,
    require_half,
    require_plain_convolution,
    require_relu,
    require_single_layers,
    require_trained_norm,
    require_unblended,
    require_unhooked,
)
from elastic_cnn.fast.training_function import Layers, Path, norm_relu, run_block
from elastic_cnn.fast.training_projection import is_projection, project


def bottleneck_layers(block: BlockDescription) -> Layers:
    """The layers of a bottleneck, plain or divided through all its layers over the paper's two scales. `Unsupported`
    where the passes do not compute them."""
    require(block.adds_input, "no shortcut joins its branches' sum")
    if block.is_elastic:
        require(len(block.branches) == 2, f"its branches are {len(block.branches)}, not two")
        require_half(block.low[0])
    require(bool(block.after), "no norm follows its branches' sum")
    (_, norm), *rest = block.after
    whole = all(len(branch.layers) == 3 for branch in block.branches) and len(rest) <= 1
    require(whole, "it is not divided through all its layers" if block.is_elastic else "it is not a bottleneck")
    require_trained_norm(norm)
    require_relu(block.act)
    high, *low = (_path(branch) for branch in block.branches)
    return Layers(high, low[0] if low else None, norm)


def _path(branch: BranchDescription) -> Path:
    require_single_layers(branch, 3, training=True)
    first, second, third = branch.layers
    for layer in branch.layers:
        require_plain_convolution(layer.conv)
        require(layer.conv.bias is None, "a convolution before a norm has a bias")
    for layer in (first, second):
        require_trained_norm(layer.norm)
        require_relu(layer.act)
    require(third.norm is third.act is None, "a norm or activation ends a branch")
    return Path(first.conv, first.norm, second.conv, second.norm, third.conv)


def require_call(module: nn.Module, norms: Sequence[nn.BatchNorm2d], x: Tensor) -> None:
    """`Unsupported` says why the fused passes may not run on `x` now."""
    trains = module.training and all(norm.training for norm in norms)
    require(trains, "a norm is frozen, or in evaluation mode")
    require(x.device.type == "cpu", f"the device is {x.device.type}: the native passes are for the CPU")
    require_dtypes(x, norms[0].weight)
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and x.numel() > 0
    require(channels_last, "maps are not channels_last")
    traced = torch.jit.is_tracing() or torch._C._are_functorch_transforms_active()
    require(not traced, "the network is being traced or transformed")
    require(type(x) is Tensor or isinstance(x, nn.Parameter), f"the map is a {type(x).__name__}")
    require(not torch.nn.modules.module._has_any_global_hook(), "a hook wants the layers inside")
    require_unhooked(module, inside_alone=True)
    require(x.shape[0] * x.shape[2] * x.shape[3] >= 8, "the map has too few pixels")


def require_dtypes(x: Tensor, weight: Tensor) -> None:
    """`Unsupported` says why the passes do not compute a map of this dtype with weights of that one: maps of float32 or
    float64 like the weights, or of bfloat16 under autocast, which keeps weights in float32."""
    autocast = torch.is_autocast_enabled("cpu")
    if x.dtype == torch.bfloat16 and autocast and torch.get_autocast_dtype("cpu") == torch.bfloat16:
        require(weight.dtype == torch.float32, f"maps are {x.dtype}, weights {weight.dtype}")
        require(bool(training_ops.bf16_level()), "this processor has no AVX-512 BF16")
        return
    require(not autocast, f"autocast is on, and maps are {x.dtype}")
    fits = x.dtype in (torch.float32, torch.float64) and weight.dtype == x.dtype
    require(fits, f"maps are {x.dtype}, weights {weight.dtype}")


class TrainingForm(nn.Module):
    """Shared by all forms. plain_because: why its latest call computed as the base class does; empty if it did not.

    plain_class: the base class.
    """

    plain_because: str = ""
    plain_class: ClassVar[type[nn.Module]] = nn.Module

    def fused_layers(self, x: Tensor) -> Any:
        """The layers for the fused passes, None where they may not run on `x`."""
        if torch.compiler.is_compiling() or not self.training:
            self.plain_because = "the network is in evaluation mode, or being compiled"
            return None
        try:
            layers = self.read_layers()
            require_call(self, layers.norms, x)
            self.plain_because = ""
        except Unsupported as error:
            self.plain_because = str(error)
            return None
        return layers

    def read_layers(self) -> Any:
        """The block's layers as they are now. `Unsupported` where the passes do not compute them."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _without_init, (self.plain_class,), self.__getstate__()


class FusedResidual(TrainingForm):
    """Of every residual family: called with a map, DLA's also with the shortcut that its tree hands over."""

    def read_layers(self) -> "ResidualLayers":
        return ResidualLayers(describe(self))

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        found = self.fused_layers(x)
        if found is None:
            arguments = (x, shortcut, children) if shortcut is not None or children is not None else (x,)
            return self.plain_class.forward(self, *arguments)
        if shortcut is None and found.block.shortcut is not None:
            shortcut = found.block.shortcut(x)
        if shortcut is x:
            shortcut = None
        joins = shortcut is None or shortcut.dtype == x.dtype
        if joins and found.attention is None and is_absent(found.block.drop_path):
            return run_block(found.layers, x, shortcut)
        y = run_block(found.layers, x, None, open_end=True)
        for module in (found.attention, found.block.drop_path):
            y = y if module is None else module(y)
        return torch.relu_(y + (x if shortcut is None else shortcut))


class ResidualLayers:
    """A residual block as the passes take it. attention: what follows the last norm, None where nothing does."""

    def __init__(self, block: BlockDescription):
        require_unblended(block)
        self.block = block
        self.layers = bottleneck_layers(block)
        self.norms = self.layers.norms
        self.attention = block.after[1][1] if len(block.after) > 1 else None


class FusedDlaRoot(TrainingForm):
    """Joins the outputs of a DLA tree."""

    def read_layers(self) -> Any:
        root = describe(self)
        require(not root.adds_input, "its root adds a shortcut")
        require_single_layers(root.high, 1, training=True)
        require_relu(root.act)
        require(len(root.after) == 1, "its root has no norm")
        require_trained_norm(root.after[0][1])
        return _Norms([root.after[0][1]])

    def forward(self, x_children: list[Tensor]) -> Tensor:
        found = self.fused_layers(x_children[0])
        if found is None:
            return self.plain_class.forward(self, x_children)
        z = self.conv(torch.cat(x_children, 1))  # type: ignore[operator]
        return norm_relu(found.norms[0], z.contiguous(memory_format=torch.channels_last))


class _Norms:
    """The norms of a form that needs no other layers."""

    def __init__(self, norms: list[nn.BatchNorm2d]):
        self.norms = norms


class FusedSequential(TrainingForm, nn.Sequential):
    """Layers one after the other, some of them a batch norm; a 1 x 1 convolution may precede it, a ReLU follow."""

    plain_class: ClassVar[type[nn.Module]] = nn.Sequential

    def read_layers(self) -> Any:
        norms = [layer for layer in self if type(layer) is nn.BatchNorm2d]
        require(bool(norms), "it has no BatchNorm2d")
        for norm in norms:
            require_trained_norm(norm)
        return _Norms(norms)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused_layers(x) is None:
            return super().forward(x)
        layers: list[Any] = list(self)
        while layers:
            projects = len(layers) > 1 and is_projection(layers[0], layers[1]) and training_ops.own_products(x)
            projection = layers.pop(0) if projects else None
            layer = layers.pop(0)
            if not is_exactly(layer, nn.BatchNorm2d):
                x = layer(x)
                continue
            relu = bool(layers) and is_exactly(layers[0], nn.ReLU)
            if relu:
                layers.pop(0)
            x = x.contiguous(memory_format=torch.channels_last)
            x = norm_relu(layer, x, relu) if projection is None else project(projection, layer, x, relu)
        return x


_CLASSES: dict[type[nn.Module], type[TrainingForm]] = {nn.Sequential: FusedSequential}


def training_class(kind: type[nn.Module]) -> type[TrainingForm]:
    """The class of a family's blocks, of DLA's roots or of sequences in the training form; the same at each call."""
    if kind not in _CLASSES:
        base = FusedDlaRoot if kind is DlaRoot else FusedResidual
        members = {"__module__": __name__, "__doc__": f"`{kind.__name__}` in fused passes.", "plain_class": kind}
        _CLASSES[kind] = type(f"Fused{kind.__name__}", (base, kind), members)
    return _CLASSES[kind]


def _without_init(kind: type[nn.Module]) -> nn.Module:
    """A block in the training form for unpickling to fill."""
    form = training_class(kind)
    return form.__new__(form)
