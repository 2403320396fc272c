"""Blocks in their training form: the very modules of the network, computing in fewer passes over memory.

A block takes the form by a change of its class to a subclass (`FORMS`), so that it holds the same parameters, buffers
and children under the same names, and remains an instance of what it was. At each call it asks `obstacle` whether the
fused passes may run; where not, it computes as its base class does and keeps the reason in `plain_because`.
"""

from typing import Any

import timm.models.dla as timm_dla
import timm.models.resnet as timm_resnet
import torch
import torchvision.models.resnet as torchvision_resnet
from torch import Tensor, nn

from elastic_cnn.fast.training_function import Layers, Path, norm_relu, run_block
from elastic_cnn.fast.training_projection import is_projection, project
from elastic_cnn.nn.branches import Branch
from elastic_cnn.nn.resample import AreaDownsample, Upsample
from elastic_cnn.surgery.dla_block import ElasticDlaBlock
from elastic_cnn.surgery.residual import ElasticResidual

PATH = ("conv1", "norm1", "act1", "conv2", "norm2", "act2", "conv3")


class Unsupported(ValueError):
    """A block that the training form does not cover; the message says why."""


def _check_kinds(convolutions: list[nn.Conv2d], norms: list[nn.BatchNorm2d], acts: list[nn.Module]) -> None:
    """`Unsupported` unless the layers are exactly what the passes compute."""
    for conv in convolutions:
        if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise Unsupported(f"a convolution is a {type(conv).__name__}, or pads otherwise than with zeros")
        if conv.bias is not None:
            raise Unsupported("a convolution before a norm has a bias")
    for norm in norms:
        if type(norm) is not nn.BatchNorm2d:
            raise Unsupported(f"a norm is a {type(norm).__name__}, not a BatchNorm2d")
        if norm.weight is None or not norm.track_running_stats or norm.running_mean is None:
            raise Unsupported("a batch norm has no weight or keeps no running statistics")
    for act in acts:
        if type(act) is not nn.ReLU:
            raise Unsupported(f"an activation is a {type(act).__name__}, not a ReLU")


def _is_identity(module: Any) -> bool:
    return module is None or type(module) is nn.Identity


def bottleneck_layers(block: Any) -> Layers:
    """The layers of timm's (ResNet's, DLA's) or torchvision's bottleneck."""
    if not (_is_identity(getattr(block, "drop_block", None)) and _is_identity(getattr(block, "aa", None))):
        raise Unsupported("drop-block or anti-aliasing stands between its layers")
    relu = getattr(block, "relu", None)
    path = Path(block.conv1, block.bn1, block.conv2, block.bn2, block.conv3)
    layers = Layers(path, None, block.bn3)
    acts: list[Any] = [getattr(block, f"act{i}", relu) for i in (1, 2, 3)]
    _check_kinds(layers.convolutions, layers.norms, acts)
    return layers


def elastic_layers(block: ElasticResidual) -> Layers:
    """The layers of an elastic bottleneck that is divided through all its layers, over the paper's two scales."""
    branches = [block.branches.high, *block.branches.low]
    if len(branches) != 2 or branches[1].scale != 2 or not branches[1].resamples:
        raise Unsupported("its branches are not two, at full and at half resolution")
    down, up = branches[1].down, branches[1].up
    if type(down) is not AreaDownsample or type(up) is not Upsample or up.mode != "bilinear":
        raise Unsupported("its low branch does not pool and interpolate")
    if [name for name, _ in block.tail.named_children() if name != "se"] != ["bn3"]:
        raise Unsupported("it is not divided through all its layers")
    paths, acts = zip(*(_path(branch) for branch in branches), strict=True)
    layers = Layers(paths[0], paths[1], block.tail.bn3)  # type: ignore[arg-type]
    _check_kinds(layers.convolutions, layers.norms, [block.act, *acts[0], *acts[1]])
    return layers


def _path(branch: Branch) -> tuple[Path, list[nn.Module]]:
    parts = dict(branch.transform.named_children())
    if list(parts) != ["conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3"]:
        raise Unsupported("it is not divided through all its layers")
    modules: Any = parts
    return Path(modules["conv1"], modules["bn1"], modules["conv2"], modules["bn2"], modules["conv3"]), [
        modules["act1"], modules["act2"],
    ]  # fmt: skip


def obstacle(module: nn.Module, norms: list[nn.BatchNorm2d], x: Tensor) -> str:
    """Why the fused passes may not run on `x` now, empty where they may."""
    if not module.training or not all(norm.training for norm in norms):
        return "a norm is frozen, or in evaluation mode"
    if x.device.type != "cpu":
        return f"the device is {x.device.type}: the native passes are for the CPU"
    if x.dtype not in (torch.float32, torch.float64) or norms[0].weight.dtype != x.dtype:
        return f"maps are {x.dtype}, weights {norms[0].weight.dtype}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if not x.is_contiguous(memory_format=torch.channels_last) or x.numel() == 0:
        return "maps are not channels_last"
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return "the network is being compiled, traced or transformed"
    if type(x) is not Tensor and not isinstance(x, nn.Parameter):
        return f"the map is a {type(x).__name__}"
    if has_hooks(module):
        return "a hook wants the layers inside"
    return ""


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook on a module inside this one would not be called by the fused passes."""
    everywhere = torch.nn.modules.module
    if everywhere._has_any_global_hook():
        return True
    return any(
        child._forward_hooks or child._forward_pre_hooks or child._backward_hooks or child._backward_pre_hooks
        for child in module.modules()
        if child is not module
    )


class TrainingForm(nn.Module):
    """Shared by all forms. plain_because: why its latest call computed as the base class does; empty if it did not."""

    plain_because: str = ""

    def fused_layers(self, x: Tensor) -> Any:
        """The layers for the fused passes, None where they may not run on `x`."""
        try:
            layers = self.read_layers()
            self.plain_because = self.block_obstacle() or obstacle(self, layers.norms, x)
            if x.shape[0] * x.shape[2] * x.shape[3] < 8:
                self.plain_because = "the map has too few pixels"
        except Unsupported as error:
            self.plain_because = str(error)
        return None if self.plain_because else layers

    def read_layers(self) -> Any:
        """The block's layers as they are now. `Unsupported` where the passes do not compute them."""
        raise NotImplementedError

    def block_obstacle(self) -> str:
        """A reason of this family's own."""
        return ""


def _finish(block: Any, y: Tensor, x: Tensor, shortcut: Tensor | None, se: nn.Module | None) -> Tensor:
    """What follows an open end: squeeze-and-excitation, stochastic depth, shortcut and ReLU."""
    if se is not None:
        y = se(y)
    if block.drop_path is not None:
        y = block.drop_path(y)
    return torch.relu_(y + (x if shortcut is None else shortcut))


def _run(block: Any, layers: Layers, x: Tensor, shortcut_path: nn.Module | None, se: nn.Module | None) -> Tensor:
    shortcut = None if shortcut_path is None else shortcut_path(x)
    if se is None and block.drop_path is None:
        return run_block(layers, x, shortcut)
    return _finish(block, run_block(layers, x, None, open_end=True), x, shortcut, se)


class FusedBottleneck(TrainingForm, timm_resnet.Bottleneck):
    """timm's ResNet, ResNeXt and SE-ResNeXt bottleneck."""

    def read_layers(self) -> Layers:
        return bottleneck_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        layers = self.fused_layers(x)
        return super().forward(x) if layers is None else _run(self, layers, x, self.downsample, self.se)


class FusedTorchvisionBottleneck(TrainingForm, torchvision_resnet.Bottleneck):
    """torchvision's."""

    def read_layers(self) -> Layers:
        return bottleneck_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        layers = self.fused_layers(x)
        if layers is None:
            return super().forward(x)
        projection: Any = self.downsample
        return run_block(layers, x, None if projection is None else projection(x))


class FusedDlaBottleneck(TrainingForm, timm_dla.DlaBottleneck):
    """timm's DLA-X bottleneck; the tree around it hands over the shortcut."""

    def read_layers(self) -> Layers:
        return bottleneck_layers(self)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        layers = self.fused_layers(x)
        if layers is None:
            return super().forward(x, shortcut, children)
        return run_block(layers, x, None if shortcut is x else shortcut)


class FusedElasticResidual(TrainingForm, ElasticResidual):
    """The elastic bottleneck of ResNeXt and SE-ResNeXt."""

    def read_layers(self) -> Layers:
        return elastic_layers(self)

    def block_obstacle(self) -> str:
        return _blend_obstacle(self)

    def forward(self, x: Tensor) -> Tensor:
        layers = self.fused_layers(x)
        if layers is None:
            return super().forward(x)
        return _run(self, layers, x, self.shortcut, getattr(self.tail, "se", None))


class FusedElasticDlaBlock(TrainingForm, ElasticDlaBlock):
    """The elastic bottleneck of DLA-X."""

    def read_layers(self) -> Layers:
        return elastic_layers(self)

    def block_obstacle(self) -> str:
        return _blend_obstacle(self)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        layers = self.fused_layers(x)
        if layers is None:
            return super().forward(x, shortcut, children)
        return run_block(layers, x, None if shortcut is x else shortcut)


def _blend_obstacle(block: ElasticResidual) -> str:
    low: Any = block.branches.low[0]
    return "its low branch is blended with full resolution" if low.blend < 1 else ""


class FusedDlaRoot(TrainingForm, timm_dla.DlaRoot):
    """Joins the outputs of a DLA tree."""

    def read_layers(self) -> Any:
        _check_kinds([self.conv], [self.bn], [self.relu])
        return _Norms([self.bn])

    def block_obstacle(self) -> str:
        return "its root adds a shortcut" if self.shortcut else ""

    def forward(self, x_children: list[Tensor]) -> Tensor:
        if self.fused_layers(x_children[0]) is None:
            return super().forward(x_children)
        z = self.conv(torch.cat(x_children, 1))
        return norm_relu(self.bn, z.contiguous(memory_format=torch.channels_last))


class _Norms:
    """The norms of a form that needs no other layers."""

    def __init__(self, norms: list[nn.BatchNorm2d]):
        self.norms = norms


class FusedSequential(TrainingForm, nn.Sequential):
    """Layers one after the other, some of them a batch norm; a 1 x 1 convolution may precede it, a ReLU follow."""

    def read_layers(self) -> Any:
        norms = [layer for layer in self if type(layer) is nn.BatchNorm2d]
        _check_kinds([], norms, [])
        if not norms:
            raise Unsupported("it has no BatchNorm2d")
        return _Norms(norms)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused_layers(x) is None:
            return super().forward(x)
        layers: list[Any] = list(self)
        while layers:
            projection = layers.pop(0) if len(layers) > 1 and is_projection(layers[0], layers[1]) else None
            layer = layers.pop(0)
            if type(layer) is not nn.BatchNorm2d:
                x = layer(x)
                continue
            relu = bool(layers) and type(layers[0]) is nn.ReLU
            if relu:
                layers.pop(0)
            x = x.contiguous(memory_format=torch.channels_last)
            x = norm_relu(layer, x, relu) if projection is None else project(projection, layer, x, relu)
        return x


FORMS: dict[type[nn.Module], type[TrainingForm]] = {
    timm_resnet.Bottleneck: FusedBottleneck,
    torchvision_resnet.Bottleneck: FusedTorchvisionBottleneck,
    timm_dla.DlaBottleneck: FusedDlaBottleneck,
    timm_dla.DlaRoot: FusedDlaRoot,
    ElasticResidual: FusedElasticResidual,
    ElasticDlaBlock: FusedElasticDlaBlock,
    nn.Sequential: FusedSequential,
}
