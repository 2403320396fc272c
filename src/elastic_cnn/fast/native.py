"""Residual blocks of an optimized network as native CPU kernels: runs of blocks become one call each.

`to_native` takes what `optimize_for_inference` yields (norms folded, branches merged) and replaces what the kernels
compute: ResNet's and ResNeXt's bottlenecks and their elastic kin, with projections, strides and squeeze-and-excitation,
and DLA's trees of such blocks, and DenseNet's layers.
Everything else keeps its form, and the network's report says what and why.
"""

import copy
import time
from collections.abc import Sequence
from typing import Any

import timm.models.resnet as timm_resnet
import torch
from torch import Tensor, nn

from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.native_blocks import BLOCKS, CannotBeNative, describe
from elastic_cnn.fast.native_dense import NativeDenseBlocks, to_native_dense
from elastic_cnn.fast.native_dla import NativeDlaTree, smallest_trees, to_native_tree
from elastic_cnn.fast.native_stem import native_stem
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import Packed, ResidualBlock, pack

STEM = ("conv1", "bn1", "act1", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")


class NativeBlocks(nn.Module):
    """A run of residual blocks as one native call: `(N, C_in, H, W)` -> `(N, C_out, H', W')`, float32 on the CPU."""

    def __init__(self, packed: Packed):
        super().__init__()
        self.plan = packed.plan
        self.register_buffer("weights", ops.in_huge_pages([packed.weights]), persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.elastic_cnn.residual_blocks(x, self.weights, self.plan)

    def extra_repr(self) -> str:
        return f"{len(self.plan) // ops.FIELDS} blocks"


class NativeResNet(timm_resnet.ResNet):
    """timm's ResNet whose four stages run as one call, so that maps between stages keep the kernels' layout.

    The stages stand where they stood, as native modules that share the weights: `forward_intermediates` uses them, and
    so does `forward_features` when hooks look at one.
    """

    native_stem: nn.Module
    native_trunk: NativeBlocks

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, C, H / 32, W / 32)
        if any(has_hooks(self.get_submodule(name)) for name in (*STEM, *STAGES)):
            return super().forward_features(x)
        return self.native_trunk(self.native_stem(x))


def native_available(network: nn.Module) -> bool:
    """Whether the native kernels can serve `network` here; its report says why where they cannot."""
    report: Any = getattr(network, "optimization_report", None)
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        reason = "no native kernels: they take float32 on the CPU"
    else:
        try:
            ops.require()
            return True
        except ops.NativeKernelsMissing as error:
            reason = str(error)
    if report is not None:
        report.notes.append(reason)
    return False


@torch.no_grad()
def to_native(network: nn.Module) -> nn.Module:
    """Replace the blocks that the native kernels compute, in place; returns `network`.

    network: the result of `optimize_for_inference`, float32 on the CPU. Its `optimization_report` gets a note of what
    became native and, for each block that did not, the reason. Raises `NativeKernelsMissing` where there are no
    kernels (`native_available` asks beforehand).
    """
    ops.require()
    report: Any = getattr(network, "optimization_report", None)
    blocks, calls = 0, 0
    for name, sequence in list(network.named_modules()):
        if not isinstance(sequence, nn.Sequential):
            continue
        for run in _runs(name, sequence, report):
            packed = pack([described for _, described in run])
            _put(sequence, [key for key, _ in run], NativeBlocks(packed))
            blocks += len(run)
            calls += 1
    trees = _put_trees(network, report)
    blocks, calls = blocks + 2 * trees, calls + trees
    dense, dense_calls = to_native_dense(network, report)
    blocks, calls = blocks + dense, calls + dense_calls
    if type(network) is timm_resnet.ResNet:
        calls -= _join_stages(network)
    if report is not None:
        _report_others(network, report)
        level = torch.ops.elastic_cnn.kernel_level()
        report.notes.append(f"native kernels ({level}): {blocks} blocks in {calls} calls")
    return network


def is_native(network: nn.Module) -> bool:
    """Whether native kernels compute any of its blocks."""
    return any(isinstance(module, (NativeBlocks, NativeDenseBlocks, NativeDlaTree)) for module in network.modules())


def native_where_faster(network: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """`network` with native blocks, or as it is where that is faster on `example`; its report says which.

    example: inputs on the CPU, on which both forms are timed; where there are none, or without values (a meta tensor),
    the kernels are taken.
    """
    if not example or any(x.device.type != "cpu" for x in example):
        return to_native(network)
    native = to_native(copy.deepcopy(network))
    if not is_native(native):
        return native
    plain_seconds, native_seconds = (_seconds(form, example) for form in (network, native))
    if native_seconds <= plain_seconds:
        return native
    report: Any = getattr(network, "optimization_report", None)
    if report is not None:
        sizes = ", ".join(str(tuple(x.shape)) for x in example)
        took = f"{1e3 * native_seconds:.3g} ms, the PyTorch form {1e3 * plain_seconds:.3g} ms"
        report.notes.append(f"no native kernels: on {sizes} they took {took}")
    return network


def _seconds(network: nn.Module, example: Sequence[Tensor]) -> float:
    """The least of three calls, after one of warm-up."""
    times = []
    with torch.inference_mode():
        for _ in range(4):
            began = time.perf_counter()
            network(*example)
            times.append(time.perf_counter() - began)
    return min(times[1:])


def _runs(name: str, sequence: nn.Sequential, report: Any) -> list[list[tuple[str, ResidualBlock]]]:
    """The longest runs of neighbouring blocks that can be native."""
    runs: list[list[tuple[str, ResidualBlock]]] = [[]]
    for key, block in sequence.named_children():
        try:
            described = describe(block)
        except CannotBeNative as reason:
            if isinstance(block, BLOCKS) and report is not None:
                report.left[f"{name}.{key}".lstrip(".")] = f"not native: {reason}"
            runs.append([])
            continue
        runs[-1].append((key, described))
    return [run for run in runs if run]


def _put_trees(network: nn.Module, report: Any) -> int:
    """Replace DLA's trees of two blocks, in place; how many there were that could be."""
    count = 0
    for name, tree, children in list(smallest_trees(network)):
        try:
            native = to_native_tree(tree, children)
        except CannotBeNative as reason:
            if report is not None:
                report.left[name] = f"not native: {reason}"
            continue
        network.set_submodule(name, native)
        count += 1
    return count


def _join_stages(network: Any) -> int:
    """Let a ResNet whose four stages are native run them as one call, in place; how many calls that saves."""
    stages = [list(getattr(network, name).children()) for name in STAGES]
    if any(len(stage) != 1 or not isinstance(stage[0], NativeBlocks) for stage in stages):
        return 0
    parts: list[Any] = [stage[0] for stage in stages]
    trunk = NativeBlocks(Packed(torch.cat([part.weights for part in parts]), [n for part in parts for n in part.plan]))
    for part, view in zip(parts, trunk.weights.split([len(part.weights) for part in parts]), strict=True):
        part.weights = view
    network.native_trunk = trunk
    network.native_stem = native_stem([getattr(network, name) for name in STEM])
    network.__class__ = NativeResNet
    return len(parts) - 1


def _report_others(network: nn.Module, report: Any) -> None:
    """Say of every block that could have been native and stands outside a `Sequential` why it is not."""
    for name, block in network.named_modules():
        if isinstance(block, BLOCKS) and not report.left.get(name, "").startswith("not native"):
            report.left[name] = "not native: not one of a row of blocks (its shortcut may come from outside)"


def _put(sequence: nn.Sequential, keys: Sequence[str], native: NativeBlocks) -> None:
    """`native` at the first of these places; the others go."""
    sequence._modules[keys[0]] = native
    for key in keys[1:]:
        del sequence._modules[key]
