"""The native operators: what they take, and whether they run here.

    stem(x, weights, bias, kernel, stride)  convolution, ReLU and 3x3 max pooling of stride 2, one pass
    residual_blocks(x, weights, plan)       a sequence of residual blocks (`packing.pack`), one call
    dla_tree(x, bottom, children, weights, plan)  DLA's smallest tree (`packing.pack_tree`), one call
    dense_blocks(x, weights, plan)          DenseNet's blocks and transitions (`packing_dense.pack_dense`), one call

All take maps (N, C, H, W) on the CPU of any size and memory format and return channels-last maps; no gradients. Maps
are float32, or bfloat16 where the weights were packed for them (int32 words): each has its operators (`operator`).
`ValueError` or `TypeError` for maps that do not fit. What `torch.compile` and `torch.export` need to see through them
is registered with them (`..._output` in `cpu/inference`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from elastic_cnn.kernels.native import level, load

FIELDS = 12  # numbers a block in a plan


class NativeKernelsMissing(RuntimeError):
    """A native operator was called where there are none."""


@functools.cache
def ready(dtype: torch.dtype = torch.float32) -> bool:
    """Load the kernels for maps of this dtype, once a process; whether they run here."""
    return bool(load() and torch.ops.elastic_cnn.kernel_level()) and (dtype == torch.float32 or bool(level(dtype)))


def _suffix(dtype: torch.dtype) -> str:
    return "_bf16" if dtype == torch.bfloat16 else ""


def map_dtype(weights: Tensor) -> torch.dtype:
    """The dtype of the maps that packed weights are for."""
    return torch.bfloat16 if weights.dtype == torch.int32 else torch.float32


def call(name: str, x: Tensor, weights: Tensor, *rest: Any) -> Tensor:
    """The operator of this name on `x`, in the dtype that `weights` are packed for. `RuntimeError` where a gradient
    through it would be asked for."""
    require_no_gradient(x)
    return operator(name, weights)(x.to(map_dtype(weights)), weights, *rest)


def require_no_gradient(x: Tensor) -> None:
    """`RuntimeError` where the result on `x` would have to have a gradient, which the inference kernels have not."""
    if x.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "a network optimized for inference has no gradients in its native kernels: call it under torch.no_grad(), "
            "take the network as it was before, or optimize_for_inference(..., native=False)"
        )


def operator(name: str, weights: Tensor) -> Callable[..., Tensor]:
    """The operator of this name for the maps that `weights` are packed for."""
    return getattr(torch.ops.elastic_cnn, name + _suffix(map_dtype(weights)))


def require(dtype: torch.dtype = torch.float32) -> None:
    """`NativeKernelsMissing`, with the reason, where the kernels for maps of this dtype do not run."""
    if dtype not in (torch.float32, torch.bfloat16):
        raise NativeKernelsMissing(f"the native kernels take maps of float32 or bfloat16, not {dtype}")
    if not ready(dtype):
        reason = load().reason if not load() else "this processor has neither AVX-512 nor AVX2"
        if load() and dtype == torch.bfloat16:
            part = load("bf16")
            reason = "this processor has no AVX-512 BF16" if part else part.reason
        raise NativeKernelsMissing(f"the native kernels do not run here: {reason}; `elastic doctor` says more")


def in_huge_pages(parts: Sequence[Tensor]) -> Tensor:
    """These vectors behind one another, in memory that the system is asked to keep in huge pages."""
    whole = torch.empty(sum(len(part) for part in parts), dtype=parts[0].dtype)
    torch.ops.elastic_cnn.advise_huge_pages(whole)
    return torch.cat(list(parts), out=whole)
