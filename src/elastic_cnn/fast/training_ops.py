"""The native passes of the training form (kernels/cpu/training) as custom operators.

All maps are channels_last. `statistics` is (4, C): mean, 1 / sqrt(var + eps), and the scale and shift that fold these
with the norm's weight and bias. `active` has one bit for each element of a block's output: whether its ReLU let it by.
"""

import functools

import torch

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
