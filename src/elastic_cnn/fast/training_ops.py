"""The native passes of the training form (kernels/cpu/training) as custom operators, and what of them runs here.

All maps are channels_last; beside maps of bfloat16, all else is float32. `statistics` is (4, C): mean,
1 / sqrt(var + eps), and the scale and shift that fold these with the norm's weight and bias. `active` has one bit for
each element of a block's output: whether its ReLU let it by.
"""

import functools

import torch
from torch import Tensor

from elastic_cnn.kernels import native


@functools.cache
def unavailable() -> str:
    """Why the native passes cannot run here; empty where they can. The first call loads, or compiles, them."""
    loaded = native.load("training")
    if not loaded:
        return f"no native kernels: {loaded.reason}"
    return (
        "" if torch.ops.elastic_cnn.train_level() else "no native kernels: this processor has neither AVX-512 nor AVX2"
    )


@functools.cache
def bf16_level() -> str:
    """The instruction set of the passes over maps of bfloat16, `avx512_bf16`, or `amx_bf16` where the processor has the
    matrix unit too; empty where they cannot run."""
    return "" if unavailable() else torch.ops.elastic_cnn.train_bf16_level()


def own_products(x: Tensor) -> bool:
    """Whether the native products serve a map of this dtype. On a processor with a matrix unit, which they do not use,
    the library's convolutions serve bfloat16, between the same passes."""
    return x.dtype != torch.bfloat16 or bf16_level() == "avx512_bf16"
