"""The native operators as functions.

    stem(x, weights, bias, kernel, stride)  convolution, ReLU and 3x3 max pooling of stride 2, one pass
    residual_blocks(x, weights, plan)       a sequence of residual blocks (`packing.pack`), one call
    dla_tree(x, bottom, children, weights, plan)  DLA's smallest tree (`packing.pack_tree`), one call
    dense_blocks(x, weights, plan)          DenseNet's blocks and transitions (`packing_dense.pack_dense`), one call

All take float32 maps (N, C, H, W) on the CPU of any size and memory format and return channels-last maps; no gradients.
`ValueError` or `TypeError` for maps that do not fit. What `torch.compile` and `torch.export` need to see through them
is registered with them (`..._output` in `cpu/inference`).
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from elastic_cnn.kernels.native import load

FIELDS = 11  # numbers a block in a plan


class NativeKernelsMissing(RuntimeError):
    """A native operator was called where there are none."""


@functools.cache
def ready() -> bool:
    """Load the kernels, once a process; whether they run here."""
    return bool(load() and torch.ops.elastic_cnn.kernel_level())


def require() -> None:
    """`NativeKernelsMissing`, with the reason, where the kernels do not run."""
    if not ready():
        reason = load().reason if not load() else "this processor has neither AVX-512 nor AVX2"
        raise NativeKernelsMissing(f"the native kernels do not run here: {reason}; `elastic doctor` says more")


def in_huge_pages(parts: Sequence[Tensor]) -> Tensor:
    """These vectors behind one another, in memory that the system is asked to keep in huge pages."""
    whole = torch.empty(sum(len(part) for part in parts))
    torch.ops.elastic_cnn.advise_huge_pages(whole)
    return torch.cat(list(parts), out=whole)


def stem(x: Tensor, weights: Tensor, bias: Tensor, kernel: int, stride: int) -> Tensor:
    """max_pool(relu(conv(x) + bias)), 3x3 windows of stride 2: (N, C_in, H, W) -> (N, C_out, H', W').

    weights: `packing.pack_stem` of (C_out, C_in, kernel, kernel), kernel odd, padding kernel // 2; bias (C_out,).
    """
    require()
    return torch.ops.elastic_cnn.stem(x, weights, bias, kernel, stride)


def residual_blocks(x: Tensor, weights: Tensor, plan: list[int]) -> Tensor:
    """The blocks of `packing.pack` one after the other: (N, C_in, H, W) -> (N, C_out, H', W')."""
    require()
    return torch.ops.elastic_cnn.residual_blocks(x, weights, plan)


def dla_tree(x: Tensor, bottom: Tensor, children: list[Tensor], weights: Tensor, plan: list[int]) -> Tensor:
    """The tree of `packing.pack_tree`: (N, C_in, H, W) -> (N, C, H', W').

    bottom: (N, C_in, H', W'), the first block's shortcut or what its projection reads; children: (N, C_i, H', W') each.
    """
    require()
    return torch.ops.elastic_cnn.dla_tree(x, bottom, children, weights, plan)


def dense_blocks(x: Tensor, weights: Tensor, plan: list[int]) -> Tensor:
    """The steps of `packing_dense.pack_dense` one after the other: (N, C_in, H, W) -> (N, C_out, H', W')."""
    require()
    return torch.ops.elastic_cnn.dense_blocks(x, weights, plan)
