"""Blocks of an optimized network as native CPU kernels: rows of blocks become one call each.

In what `optimize_for_inference` yields (norms folded, branches merged) blocks are replaced by native ones: ResNet's and
ResNeXt's bottlenecks and their elastic kin, with projections, strides and squeeze-and-excitation, DLA's trees of such
blocks, and DenseNet's blocks. Every block keeps its place and can be called, hooked and walked over by itself; a row of
neighbours in an `nn.Sequential`, called as a whole, is one call. What stays as it was, the report names.
"""

import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import timm.models.resnet as timm_resnet
import torch
from torch import Tensor, nn

from elastic_cnn.fast.describe import Unsupported, describe, is_block
from elastic_cnn.fast.describe.judge import has_hooks, is_exactly, require
from elastic_cnn.fast.native_dense import NativeDenseBlocks, count_dense, dense_blocks, dense_trunk
from elastic_cnn.fast.native_dla import NativeDlaTree, dla_trees
from elastic_cnn.fast.native_module import NativeModule, join_weights
from elastic_cnn.fast.native_residual import residual_block
from elastic_cnn.fast.native_stem import native_stem
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.fast.verify import Check, Step, apply_steps, hooks_suspended
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import level as native_level
from elastic_cnn.kernels.packing import pack
from elastic_cnn.nn.example import Example

STEM = ("conv1", "bn1", "act1", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")


Row = tuple[int, int, str, list[int]]


class NativeBlocks(NativeModule):
    """Residual blocks as one native call."""

    operator = "residual_blocks"

    def extra_repr(self) -> str:
        return f"{len(self.plan) // ops.FIELDS} blocks"


class NativeRow(nn.Sequential):
    """A sequence that is called as a whole: each row of neighbouring `NativeBlocks` in it is one call.

    native_rows: (index of the first, number of blocks, name of the buffer of their joint weights, of which each block's
    own are a part, plan).
    """

    native_rows: list[Row]

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        if any(has_hooks(layer) for layer in layers):
            return super().forward(x)
        done = 0
        for first, count, weights, plan in self.native_rows:
            for layer in layers[done:first]:
                x = layer(x)
            x, done = ops.call("residual_blocks", x, getattr(self, weights), plan), first + count
        for layer in layers[done:]:
            x = layer(x)
        return x


class NativeResNet(timm_resnet.ResNet):
    """timm's ResNet whose four stages run as one call, so that maps between stages keep the kernels' layout.

    The stages stand where they stood, as native modules that share the weights: `forward_intermediates` uses them, and
    so does `forward_features` when hooks look at one.
    """

    native_stem: nn.Module
    native_trunk: NativeBlocks

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, C, H / 32, W / 32)
        if any(has_hooks(part) for name in (*STEM, *STAGES) for part in self.get_submodule(name).modules()):
            return super().forward_features(x)
        return self.native_trunk(self.native_stem(x))


NATIVE = (NativeBlocks, NativeDenseBlocks, NativeDlaTree)


def native_available(network: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """Why the native kernels cannot serve `network` here with maps of this dtype; empty where they can."""
    parameter = next(network.parameters(), None)
    if parameter is None or parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        return "no native kernels: they take float32 on the CPU"
    try:
        ops.require(dtype)
        return ""
    except ops.NativeKernelsMissing as error:
        return str(error)


def is_native(network: nn.Module) -> bool:
    """Whether native kernels compute any of its blocks."""
    return any(isinstance(module, NATIVE) for module in network.modules())


@torch.no_grad()
def make_native(
    root: Root, report: FormReport, check: Check, example: Example | None, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The network of `root` with native blocks, or as it is where that is faster on `example`; `report` says which.

    check: what a form must pass. example: inputs on the CPU, on which both forms are timed; without one, the kernels
    are taken. dtype: of their maps; the weights are read in float32. `NativeKernelsMissing` where there are no kernels
    (`native_available` asks beforehand).
    """
    ops.require(dtype)
    found, changes = apply_steps(root, _steps(dtype), check)
    native = [name for name, module in root.network.named_modules() if isinstance(module, NATIVE)]
    if native and example is not None and (slower := _slower(root.network, changes, example)):
        report.notes.append(slower)
        return root.network
    inside = tuple(f"{name}." for name in native)
    for name in [name for name in report.left if name in native or name.startswith(inside)]:
        del report.left[name]  # not folded, but no longer a layer of its own
    report.left.update(found.left)
    report.notes.append(_summary(root.network, dtype))
    return root.network


def _slower(network: nn.Module, changes: Sequence[Change], example: Example) -> str:
    """Why the changes, which are made, are undone again; empty where they make `network` faster on the example."""
    for change in reversed(changes):
        change.undo()
    plain_seconds = least_seconds(network, example)
    for change in changes:
        change.redo()
    native_seconds = least_seconds(network, example)
    if native_seconds <= plain_seconds:
        return ""
    for change in reversed(changes):
        change.undo()
    took = f"{1e3 * native_seconds:.3g} ms, the PyTorch form {1e3 * plain_seconds:.3g} ms"
    return f"no native kernels: on {example} they took {took}"


def least_seconds(network: nn.Module, example: Example) -> float:
    """The least of three calls, after one of warm-up."""
    times, example = [], example.like(network)
    with torch.inference_mode(), hooks_suspended(network):
        for _ in range(4):
            began = time.perf_counter()
            example.call(network)
            times.append(time.perf_counter() - began)
    return min(times[1:])


def _summary(network: nn.Module, dtype: torch.dtype) -> str:
    """How many blocks are native, in how many calls."""
    blocks = sum(len(m.plan) // ops.FIELDS for m in network.modules() if isinstance(m, NativeBlocks))
    joined = sum(count - 1 for m in network.modules() if isinstance(m, NativeRow) for _, count, *_ in m.native_rows)
    calls = blocks - joined
    if isinstance(network, NativeResNet):
        blocks, calls = len(network.native_trunk.plan) // ops.FIELDS, 1
    trees = sum(isinstance(m, NativeDlaTree) for m in network.modules())
    layers, dense_calls = count_dense(network)
    level = native_level(dtype)
    return f"native kernels ({level}): {blocks + 2 * trees + layers} blocks in {calls + trees + dense_calls} calls"


def _blocks(root: Root, report: FormReport, dtype: torch.dtype) -> list[Change]:
    """Every residual block that takes a map alone, by itself."""
    changes = []
    for name, module in list(root.network.named_modules()):
        if not is_block(module):
            continue
        try:
            block = describe(module)
            if block.inputs == "maps" or not block.adds_input:
                continue
            require(block.inputs == "map", "its shortcut may come from outside, and its tree is not native")
            packed = pack([residual_block(block)], dtype)
        except Unsupported as reason:
            report.left[name] = f"not native: {reason}"
            continue
        changes.append(Change(name, "native block"))
        changes[-1].replace(root, module, NativeBlocks(packed.weights, packed.plan))
    return changes


def _rows(root: Root, report: FormReport) -> list[Change]:
    """Neighbouring native blocks of a sequence as one call where the sequence is called as a whole."""
    changes = []
    for name, sequence in list(root.network.named_modules()):
        if not is_exactly(sequence, nn.Sequential):
            continue
        layers: list[Any] = list(sequence)
        change, first = Change(name, "row of native blocks"), 0
        rows: list[Row] = []
        for native, neighbours in itertools.groupby(layers, lambda layer: isinstance(layer, NativeBlocks)):
            row = list(neighbours)
            first += len(row)
            if not native:
                continue
            buffer = f"native_weights_{len(rows)}"
            change.add_buffer(sequence, buffer, join_weights(change, row))
            plan = [number for block in row for number in block.plan]
            rows.append((first - len(row), len(row), buffer, plan))
        if rows:
            change.set(sequence, "native_rows", rows)
            change.set_class(sequence, NativeRow)
            changes.append(change)
    return changes


def _trunk(root: Root, report: FormReport, dtype: torch.dtype) -> list[Change]:
    """A ResNet whose four stages are rows of native blocks throughout runs them as one call."""
    network = root.network
    if not is_exactly(network, timm_resnet.ResNet):
        return []
    stages: list[Any] = [getattr(network, name) for name in STAGES]
    if not all(is_exactly(stage, NativeRow) and stage.native_rows[0][1] == len(stage) for stage in stages):
        return []
    change = Change("", "trunk of native blocks")
    whole = join_weights(change, [block for stage in stages for block in stage])
    lengths = [sum(len(block.weights) for block in stage) for stage in stages]
    for stage, part in zip(stages, whole.split(lengths), strict=True):
        change.set(stage, stage.native_rows[0][2], part)
    plan = [number for stage in stages for number in stage.native_rows[0][3]]
    change.set(network, "native_trunk", NativeBlocks(whole, plan))
    change.set(network, "native_stem", native_stem([getattr(network, name) for name in STEM], dtype))
    change.set_class(network, NativeResNet)
    return [change]


def _steps(dtype: torch.dtype) -> list[Step]:
    """What is made native, in this order, with maps of this dtype."""
    packed = [partial(step, dtype=dtype) for step in (dla_trees, dense_blocks, _blocks, _trunk, dense_trunk)]
    return [*packed[:3], _rows, *packed[3:]]
