"""DenseNet's dense blocks, transitions and last norm as native calls, and timm's whole trunk as one."""

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from timm.models.densenet import DenseBlock, DenseNet, DenseTransition
from torch import Tensor, nn

from elastic_cnn.fast.describe import BlockDescription, BranchDescription, Unsupported, describe
from elastic_cnn.fast.describe.description import Named
from elastic_cnn.fast.describe.judge import (
    MEANS_OF_TWO,
    bias_of,
    does_nothing,
    has_hooks,
    is_exactly,
    require,
    require_channels,
    require_convolution,
    require_fixed_norm,
    require_half,
    require_relu,
    require_single_layers,
    require_tensors,
    require_unblended,
    require_unhooked,
    scale_and_shift,
)
from elastic_cnn.fast.native_module import NativeModule, join_weights
from elastic_cnn.fast.native_stem import native_stem
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.kernels import ops, packing_dense
from elastic_cnn.kernels.packing_dense import LastNorm, Transition, pack_dense

Step = packing_dense.DenseLayer | Transition | LastNorm


class NativeDenseBlocks(NativeModule):
    """Dense blocks, transitions and norms as one native call."""

    operator = "dense_blocks"

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


def dense_blocks(root: Root, report: FormReport, dtype: torch.dtype) -> list[Change]:
    """Dense blocks and transitions, each as one call."""
    changes = []
    for name, module in list(root.network.named_modules()):
        if not isinstance(module, (DenseBlock, DenseTransition)):
            continue
        try:
            packed = pack_dense(_steps(module, dtype), dtype)
        except Unsupported as reason:
            report.left[name] = f"not native: {reason}"
            continue
        changes.append(Change(name, "native dense block"))
        changes[-1].replace(root, module, NativeDenseBlocks(ops.in_huge_pages([packed.weights]), packed.plan))
    return changes


def dense_trunk(root: Root, report: FormReport, dtype: torch.dtype) -> list[Change]:
    """timm's DenseNet whose blocks and transitions are native throughout runs them, and its last norm, as one call."""
    network = root.network
    if not is_exactly(network, DenseNet):
        return []
    features = list(network.features.named_children())
    start = next((i for i, (_, part) in enumerate(features) if isinstance(part, NativeDenseBlocks)), len(features) - 1)
    parts: list[Any] = [part for _, part in features[start:-1]]
    if not parts or not all(isinstance(part, NativeDenseBlocks) for part in parts):
        return []
    name, last = features[-1]
    try:
        require_unhooked(last)
        packed = pack_dense([LastNorm(*_norm(((name, last),)))], dtype)
    except Unsupported as reason:
        report.left[f"features.{name}"] = f"not native: {reason}"
        return []
    change = Change("", "trunk of native dense blocks")
    parts.append(NativeDenseBlocks(packed.weights, packed.plan))
    change.set(network.features, name, parts[-1])
    whole = join_weights(change, parts)
    plan = [*parts[0].plan[:4], *(number for part in parts for number in part.plan[4:])]
    change.set(network, "native_trunk", NativeDenseBlocks(whole, plan))
    change.set(network, "native_stem", native_stem([part for _, part in features[:start]], dtype))
    change.set_class(network, NativeDenseNet)
    return [change]


def count_dense(network: nn.Module) -> tuple[int, int]:
    """(dense layers that are native, calls that compute them)."""
    parts = [module for module in network.modules() if isinstance(module, NativeDenseBlocks)]
    if isinstance(network, NativeDenseNet):
        parts = [network.native_trunk]
    return sum(part.plan[4::4].count(packing_dense.LAYER) for part in parts), len(parts)


def _steps(module: Any, dtype: torch.dtype) -> list[Step]:
    """The steps of a dense block or a transition. `Unsupported` says what the kernels do not compute."""
    require_unhooked(module)
    require_tensors(module, torch.float32, "cpu")
    require_channels(module)
    if isinstance(module, DenseTransition):
        steps: list[Step] = [_transition(describe(module))]
    else:
        require(is_exactly(module, DenseBlock), f"{type(module).__name__} in place of a dense block")
        steps = [_layer(describe(layer)) for layer in module.values()]
    even = dtype != torch.bfloat16 or all(len(step.scale) % 2 == 0 for step in steps)
    require(even, "an odd number of channels, which bfloat16's pairs cannot read")
    return steps


def _layer(layer: BlockDescription) -> packing_dense.DenseLayer:
    require_unblended(layer)
    scale, shift = _norm(layer.before)
    high, bias = _branch(layer.high)
    low = None
    require(len(layer.low) <= 1, "a layer has more than one low resolution")
    if layer.low:
        require_half(layer.low[0], MEANS_OF_TWO)
        low, low_bias = _branch(layer.low[0])
        bias = bias + low_bias
    return packing_dense.DenseLayer(scale, shift, high, bias, low)


def _branch(branch: BranchDescription) -> tuple[packing_dense.DenseBranch, Tensor]:
    """(the branch, conv2's bias) of conv1, ReLU, conv2."""
    require_single_layers(branch, 2)
    first, second = branch.layers
    for layer in branch.layers:
        require(layer.norm is None, f"{type(layer.norm).__name__} stands between its layers")
    require_convolution(first.conv, 1)
    require_convolution(second.conv, 3)
    require_relu(first.act)
    require(second.act is None, "an activation follows its last convolution")
    return packing_dense.DenseBranch(first.conv.weight, bias_of(first.conv), second.conv.weight), bias_of(second.conv)


def _norm(before: Named) -> tuple[Tensor, Tensor]:
    """(scale, shift), float64, of a norm with fixed statistics that a ReLU follows."""
    require(len(before) == 1, "no norm precedes a layer")
    norm = before[0][1]
    require(is_exactly(norm, BatchNormAct2d), f"a norm is {type(norm).__name__}")
    require_fixed_norm(norm)
    require(does_nothing(norm.drop), "a norm drops")
    require_relu(norm.act)
    return scale_and_shift(norm)


def _transition(block: BlockDescription) -> Transition:
    require(len(block.after) == 1, "no pooling ends a transition")
    pool: Any = block.after[0][1]
    plain = is_exactly(pool, nn.AvgPool2d) and (pool.kernel_size, pool.stride, pool.padding) == (2, 2, 0)
    require(plain and not pool.ceil_mode and pool.divisor_override is None, f"it pools by {type(pool).__name__}")
    require_single_layers(block.high, 1)
    conv = block.high.layers[0].conv
    require_convolution(conv, 1)
    return Transition(*_norm(block.before), conv.weight.flatten(1), bias_of(conv))
