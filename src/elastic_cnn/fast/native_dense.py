"""DenseNet's dense blocks, transitions and last norm as native calls, and timm's whole trunk as one."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.models.densenet import DenseBlock, DenseLayer, DenseNet, DenseTransition
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import does_nothing
from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.fold import affine
from elastic_cnn.fast.native_blocks import CannotBeNative, require, require_half, require_relu
from elastic_cnn.fast.native_stem import native_stem
from elastic_cnn.fast.other_forms import FoldedElasticDenseLayer
from elastic_cnn.kernels import ops, packing_dense
from elastic_cnn.kernels.packing_dense import LastNorm, Transition, pack_dense

Step = packing_dense.DenseLayer | Transition | LastNorm


class NativeDenseBlocks(nn.Module):
    """Dense blocks, transitions and norms as one native call: `(N, C_in, H, W)` -> `(N, C_out, H', W')`, float32."""

    def __init__(self, weights: Tensor, plan: list[int]):
        super().__init__()
        self.plan = plan
        self.register_buffer("weights", weights, persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.elastic_cnn.dense_blocks(x, self.weights, self.plan)

    def extra_repr(self) -> str:
        return f"{self.plan[4::4].count(packing_dense.LAYER)} layers"


class NativeDenseNet(DenseNet):
    """timm's DenseNet whose blocks and transitions run as one call, so that maps between them keep the kernels' layout.

    `features` holds what it held, its parts as native modules that share the weights: `forward_intermediates` uses
    them, and so does `forward_features` where hooks look at one.
    """

    native_stem: nn.Module
    native_trunk: NativeDenseBlocks

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, C, H / 32, W / 32)
        if any(has_hooks(module) for module in self.features.modules()):
            return super().forward_features(x)
        return self.native_trunk(self.native_stem(x))


def to_native_dense(network: nn.Module, report: Any) -> tuple[int, int]:
    """Replace what the kernels compute of DenseNets, in place: (dense layers, calls) that became native."""
    layers, calls = 0, 0
    for name, module in list(network.named_modules()):
        if not isinstance(module, (DenseBlock, DenseTransition)):
            continue
        try:
            steps = _steps(module)
        except CannotBeNative as reason:
            if report is not None:
                report.left[name] = f"not native: {reason}"
            continue
        _put(network, name, steps)
        if report is not None:
            for norm in [key for key in report.left if key.startswith(f"{name}.")]:
                del report.left[norm]  # not folded, but no longer a layer of its own
        layers += sum(isinstance(step, packing_dense.DenseLayer) for step in steps)
        calls += 1
    if type(network) is DenseNet:
        calls -= _join(network, report)
    return layers, calls


def _put(network: nn.Module, name: str, steps: Sequence[Step]) -> None:
    packed = pack_dense(steps)
    network.set_submodule(name, NativeDenseBlocks(ops.in_huge_pages([packed.weights]), packed.plan))


def _join(network: Any, report: Any) -> int:
    """Let a DenseNet whose blocks and transitions are native run as one call, in place; how many calls that saves."""
    features = network.features
    last = features[-1]
    try:
        steps = [_last_norm(last)]
    except CannotBeNative:
        return 0
    start = next((i for i, part in enumerate(features) if isinstance(part, NativeDenseBlocks)), len(features) - 1)
    parts: list[Any] = list(features[start:-1])
    if not parts or not all(isinstance(part, NativeDenseBlocks) for part in parts):
        return 0
    name = next(name for name, part in features.named_children() if part is last)
    packed = pack_dense(steps)
    features.set_submodule(name, NativeDenseBlocks(packed.weights, packed.plan))
    parts.append(features[-1])
    whole = ops.in_huge_pages([part.weights for part in parts])
    for part, view in zip(parts, whole.split([len(part.weights) for part in parts]), strict=True):
        part.weights = view
    plan = [*parts[0].plan[:4], *(number for part in parts for number in part.plan[4:])]
    network.native_trunk = NativeDenseBlocks(whole, plan)
    network.native_stem = native_stem(list(features[:start]))
    network.__class__ = NativeDenseNet
    if report is not None:
        report.left.pop(f"features.{name}", None)
    return len(parts) - 2


def _steps(module: Any) -> list[Step]:
    """The steps of a dense block or a transition. `CannotBeNative` says what the kernels do not compute."""
    require(not any(has_hooks(part) for part in module.modules()), "hooks look at it")
    parameters = list(module.parameters())
    plain = all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters)
    require(plain, "its weights are not float32 on CPU")
    if isinstance(module, DenseTransition):
        return [_transition(module)]
    require(type(module) is DenseBlock, f"{type(module).__name__} in place of a dense block")
    return [_layer(layer) for layer in module.values()]


def _layer(layer: Any) -> packing_dense.DenseLayer:
    scale, shift = _norm(layer.norm1)
    if isinstance(layer, FoldedElasticDenseLayer):
        branches: Any = layer.branches
        high, bias = _branch(list(branches.high.children()))
        low = None
        require(len(branches.low) <= 1, "a layer has more than one low resolution")
        if len(branches.low):
            require_half(branches.low[0])
            low, low_bias = _branch(list(branches.low[0].transform.children()))
            bias = bias + low_bias
        return packing_dense.DenseLayer(scale, shift, high, bias, low)
    require(type(layer) is DenseLayer, f"a layer is {type(layer).__name__}")
    high, bias = _branch([layer.conv1, layer.norm2, layer.conv2])
    return packing_dense.DenseLayer(scale, shift, high, bias)


def _branch(layers: list[Any]) -> tuple[packing_dense.DenseBranch, Tensor]:
    """(the branch, conv2's bias) of [conv1, act, conv2]."""
    require(len(layers) == 3, "a layer is not 1x1, 3x3 with an activation between")
    conv1, act, conv2 = layers
    require_relu(act)
    first, bias1 = _convolution(conv1, 1)
    second, bias2 = _convolution(conv2, 3)
    return packing_dense.DenseBranch(first, bias1, second), bias2


def _convolution(conv: Any, size: int) -> tuple[Tensor, Tensor]:
    require(type(conv) is nn.Conv2d, f"{type(conv).__name__} in place of a convolution")
    same = conv.kernel_size == (size, size) and conv.padding == (size // 2, size // 2) and conv.padding_mode == "zeros"
    require(same and conv.stride == (1, 1) and conv.dilation == (1, 1), f"a convolution that is not {size} x {size}")
    require(conv.groups == 1, "a grouped convolution")
    return conv.weight, conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def _norm(norm: Any) -> tuple[Tensor, Tensor]:
    """(scale, shift), float64, of a norm with fixed statistics that a ReLU follows."""
    require(type(norm) is BatchNormAct2d, f"a norm is {type(norm).__name__}")
    require(
        norm.running_mean is not None and does_nothing(norm.drop), "a norm without running statistics, or that drops"
    )
    require_relu(norm.act)
    return affine(norm)


def _transition(transition: Any) -> Transition:
    require(type(transition) is DenseTransition, f"{type(transition).__name__} in place of a transition")
    pool = transition.pool
    plain = type(pool) is nn.AvgPool2d and pool.kernel_size == 2 and pool.stride == 2 and pool.padding == 0
    require(plain and not pool.ceil_mode and pool.divisor_override is None, f"it pools by {type(pool).__name__}")
    weight, bias = _convolution(transition.conv, 1)
    return Transition(*_norm(transition.norm), weight.flatten(1), bias)


def _last_norm(norm: nn.Module) -> LastNorm:
    require(not has_hooks(norm), "hooks look at it")
    return LastNorm(*_norm(norm))
