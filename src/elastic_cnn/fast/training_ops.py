"""The native passes of the training form (kernels/cpu/training) as custom operators, with their shapes for tracing.

All maps are channels_last. `statistics` is (4, C): mean, 1 / sqrt(var + eps), and the scale and shift that fold these
with the norm's weight and bias. `active` has one bit for each element of a block's output: whether its ReLU let it by.
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
    if not torch.ops.elastic_cnn.train_level():
        return "no native kernels: this processor has neither AVX-512 nor AVX2"
    _register_fakes()
    return ""


def _empty_map(like: Tensor, *size: int) -> Tensor:
    return torch.empty(size or like.shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _register_fakes() -> None:
    def fake(name: str):
        return torch.library.register_fake(f"elastic_cnn::{name}")

    @fake("train_statistics")
    def _(z, weight, bias, running_mean, running_var, momentum, eps):
        return z.new_empty(4, z.shape[1])

    @fake("train_normalize")
    def _(z, statistics, relu):
        return _empty_map(z)

    @fake("train_batch_norm_backward")
    def _(dy, z, statistics, relu, dz):
        return z.new_empty(z.shape[1]), z.new_empty(z.shape[1])

    @fake("train_sum_statistics")
    def _(z, low, weight, bias, running_mean, running_var, momentum, eps):
        return z.new_empty(4, z.shape[1])

    @fake("train_finish")
    def _(z, statistics, shortcut):
        n, c, h, w = z.shape
        return _empty_map(z), torch.empty(n, h, (w + 7) // 8, c, dtype=torch.uint8, device=z.device)

    @fake("train_tail_backward")
    def _(dy, active, z, statistics, has_low):
        n, c, h, w = z.shape
        low = _empty_map(z, n, c, (h + 1) // 2, (w + 1) // 2) if has_low else z.new_empty(0)
        return _empty_map(z), low, z.new_empty(c), z.new_empty(c)

    @fake("train_pool")
    def _(x):
        n, c, h, w = x.shape
        return _empty_map(x, n, c, (h + 1) // 2, (w + 1) // 2)

    @fake("train_input_gradient")
    def _(dx, dy, active, pooled):
        return None

    @fake("train_active_gradient")
    def _(dy, active):
        return _empty_map(dy)

    @fake("train_pointwise")
    def _(a, before, weight, low, norm_weight, norm_bias, running_mean, running_var, momentum, eps):
        n, _, h, w = a.shape
        return _empty_map(a, n, weight.shape[0], h, w), a.new_empty(4, 0 if norm_weight is None else weight.shape[0])

    @fake("train_pointwise_norm_gradient")
    def _(dz, weight, z, statistics):
        return _empty_map(z), z.new_empty(z.shape[1]), z.new_empty(z.shape[1])

    @fake("train_pointwise_input_gradient")
    def _(dz, weight, dy, active, pooled):
        n, _, h, w = dz.shape
        return _empty_map(dz, n, weight.shape[1], h, w)

    @fake("train_pointwise_weight_gradient")
    def _(dz, a, before):
        return dz.new_empty(dz.shape[1], a.shape[1], 1, 1)

    @fake("train_grouped")
    def _(x, before, weight, stride, norm_weight, norm_bias, running_mean, running_var, momentum, eps):
        n, c, h, w = x.shape
        return _empty_map(x, n, c, (h - 1) // stride + 1, (w - 1) // stride + 1), x.new_empty(4, c)

    @fake("train_grouped_norm_gradient")
    def _(dz, weight, x, statistics, stride):
        return _empty_map(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])

    @fake("train_grouped_weight_gradient")
    def _(dz, x, before, weight, stride):
        return torch.empty(weight.shape, dtype=x.dtype, device=x.device)
