"""Residual blocks of an optimized network as native CPU kernels: runs of blocks become one call each.

`to_native` takes what `optimize_for_inference` yields (norms folded, branches merged) and replaces what the kernels
compute: ResNet's and ResNeXt's bottlenecks and their elastic kin, with projections, strides and squeeze-and-excitation.
Everything else keeps its form, and the network's report says what and why.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.fast.native_blocks import BLOCKS, CannotBeNative, describe
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import Packed, ResidualBlock, pack


class NativeBlocks(nn.Module):
    """A run of residual blocks as one native call: `(N, C_in, H, W)` -> `(N, C_out, H', W')`, float32 on the CPU."""

    def __init__(self, packed: Packed):
        super().__init__()
        self.plan = packed.plan
        self.register_buffer("weights", packed.weights, persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.elastic_cnn.residual_blocks(x, self.weights, self.plan)

    def extra_repr(self) -> str:
        return f"{len(self.plan) // ops.FIELDS} blocks"


def native_reason() -> str:
    """Why the native kernels cannot serve on this machine; empty where they can."""
    if ops.ready():
        return ""
    try:
        ops.require()
    except ops.NativeKernelsMissing as error:
        return str(error)
    return ""


@torch.no_grad()
def to_native(network: nn.Module) -> nn.Module:
    """Replace the blocks that the native kernels compute, in place; returns `network`.

    network: the result of `optimize_for_inference`, float32 on the CPU. Its `optimization_report` gets a note of what
    became native and, for each block that did not, the reason. Raises `NativeKernelsMissing` where there are no
    kernels (`native_reason` asks beforehand).
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
    if report is not None:
        level = torch.ops.elastic_cnn.kernel_level()
        report.notes.append(f"native kernels ({level}): {blocks} blocks in {calls} calls")
    return network


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


def _put(sequence: nn.Sequential, keys: Sequence[str], native: NativeBlocks) -> None:
    """`native` at the first of these places; the others go."""
    sequence._modules[keys[0]] = native
    for key in keys[1:]:
        del sequence._modules[key]
