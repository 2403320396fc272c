"""The elastic tail as custom operators with fakes and gradients, for `torch.compile`, CUDA graphs and autograd.

Nothing here waits for the device, and every launch depends on shapes alone: a captured CUDA graph holds them.
Maps may be bfloat16, float16, float32 or float64, NCHW or channels_last, of any height and width; sums are float32
(float64 for float64). Gradients come in a fixed order: equal inputs give equal bits.
"""

from typing import Any

import torch
from torch import Tensor

from elastic_cnn.kernels.triton.gradients import triton_tail_grad, triton_tail_sums, triton_upsample_grad
from elastic_cnn.kernels.triton.launch import (
    empty_like,
    gapless,
    in_format_of,
    lay_out,
    low_shape,
    on_device,
    sum_dtype,
)


def _merge(counts: Tensor, means: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `(C,)` of parts given by count, mean and sum of squared deviations `(parts, C)`."""
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    return mean, (squares + counts * (means - mean).square()).sum(0) / count


def _statistics(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    from elastic_cnn.kernels.triton.forward import stats_kernel

    grid = lay_out(high)
    parts = torch.empty(3, grid.reducers, grid.high[0], device=high.device, dtype=sum_dtype(high))
    with on_device(high):
        stats_kernel[(grid.reducers, grid.channel_blocks)](
            high, low, *parts.unbind(0), grid.blocks, *grid.sizes, grid.reducers, **grid.constants(high)
        )
    return _merge(*parts.unbind(0))


def _tail(
    high: Tensor,
    low: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    shortcut: Tensor | None,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    from elastic_cnn.kernels.triton.forward import tail_kernel

    out, pooled = _empty_outputs(high, shortcut, pool)
    if high.numel() == 0:
        return out, pooled
    grid = lay_out(high)
    with on_device(high):
        tail_kernel[(grid.blocks, grid.channel_blocks)](
            high, low, scale, bias, shortcut, out, pooled, *grid.sizes,
            SCALE=scale is not None, BIAS=bias is not None, SHORTCUT=shortcut is not None, RELU=relu, POOL=pool,
            **grid.constants(high),
        )  # fmt: skip
    return out, pooled


def _empty_outputs(high: Tensor, shortcut: Tensor | None, pool: bool) -> tuple[Tensor, Tensor]:
    """`out`, and the pooled map or, where none is asked for, an empty tensor in its place."""
    dtype = high.dtype if shortcut is None else torch.promote_types(high.dtype, shortcut.dtype)
    pooled = empty_like(high, low_shape(high), dtype) if pool else high.new_empty((0,), dtype=dtype)
    return empty_like(high, dtype=dtype), pooled


def _check(high: Tensor, low: Tensor, shortcut: Tensor | None) -> None:
    if tuple(low.shape) != low_shape(high):
        raise ValueError(
            f"the low-resolution map of {tuple(high.shape)} must be {low_shape(high)}, got {tuple(low.shape)}"
        )
    if shortcut is not None and shortcut.shape != high.shape:
        raise ValueError(f"shortcut must be {tuple(high.shape)} like the output, got {tuple(shortcut.shape)}")


def _maps(high: Tensor, low: Tensor, shortcut: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs checked and dense in one memory format."""
    _check(high, low, shortcut)
    high = gapless(high)
    return high, in_format_of(low, high), None if shortcut is None else in_format_of(shortcut, high)


# --- the tail with a given scale and bias ---------------------------------------------------------------------------


@torch.library.custom_op("elastic_cnn::triton_tail", mutates_args=())
def triton_tail(
    high: Tensor,
    low: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    shortcut: Tensor | None,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor]:
    """`out = relu(scale * (high + up(low)) + bias + shortcut)`, and with `pool` its 2 x 2 mean (else an empty tensor).

    high, shortcut, out: `(N, C, H, W)`; low, pooled: `(N, C, ceil(H / 2), ceil(W / 2))`; scale, bias: `(C,)`.
    up: bilinear by 2, half-pixel, cropped. `ValueError` where shapes do not fit.
    """
    high, low, shortcut = _maps(high, low, shortcut)
    return _tail(high, low, scale, bias, shortcut, relu, pool)


@triton_tail.register_fake
def _(high, low, scale, bias, shortcut, relu, pool):
    return _empty_outputs(high, shortcut, pool)


def _keep_tail(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    high, low, scale, bias, shortcut, relu, _ = inputs
    wants_scale = ctx.needs_input_grad[2]
    ctx.set_materialize_grads(False)
    ctx.relu, ctx.shortcut_dtype, ctx.low_dtype = relu, None if shortcut is None else shortcut.dtype, low.dtype
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(high, low if wants_scale else None, scale, output[0] if relu else None)


def _tail_backward(ctx: Any, grad_out: Tensor | None, grad_pooled: Tensor | None) -> tuple[Tensor | None, ...]:
    high, low, scale, out = ctx.saved_tensors
    needs_high, needs_low, needs_scale, needs_bias, needs_shortcut = ctx.needs_input_grad[:5]
    if grad_out is None and grad_pooled is None:
        return (None,) * 7
    grad_scale = grad_bias = None
    if needs_scale or needs_bias:
        total, product = triton_tail_sums(
            high, low if needs_scale else None, None, out, grad_out, grad_pooled, ctx.relu
        )
        grad_scale = product.to(scale.dtype) if needs_scale else None
        grad_bias = total.to(ctx.bias_dtype) if needs_bias else None
    grad_high, grad_shortcut = triton_tail_grad(
        high, None, scale, None, None, None, out, grad_out, grad_pooled, ctx.relu,
        ctx.shortcut_dtype if needs_shortcut else None,
    )  # fmt: skip
    grad_low = triton_upsample_grad(grad_high, ctx.low_dtype) if needs_low else None
    return (
        grad_high if needs_high else None,
        grad_low,
        grad_scale,
        grad_bias,
        grad_shortcut if needs_shortcut else None,
        None,
        None,
    )


triton_tail.register_autograd(_tail_backward, setup_context=_keep_tail)


# --- the tail with a batch norm in training --------------------------------------------------------------------------


@torch.library.custom_op("elastic_cnn::triton_tail_train", mutates_args=())
def triton_tail_train(
    high: Tensor,
    low: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    shortcut: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`triton_tail` with a batch norm that takes its statistics from this batch: `(out, pooled, mean, variance)`.

    weight, bias: the norm's, `(C,)` or None. mean, variance (biased): `(C,)` of `high + up(low)`, no gradient. The sum
    itself is never stored: the backward pass computes it again from `high` and `low`, which it needs anyway.
    """
    high, low, shortcut = _maps(high, low, shortcut)
    mean, variance = _statistics(high, low)
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    out, pooled = _tail(high, low, scale, shift, shortcut, relu, pool)
    return out, pooled, mean, variance


@triton_tail_train.register_fake
def _(high, low, weight, bias, shortcut, eps, relu, pool):
    sums = high.new_empty((high.shape[1],), dtype=sum_dtype(high))
    return (*_empty_outputs(high, shortcut, pool), sums, torch.empty_like(sums))


def _keep_train(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    high, low, weight, bias, shortcut, eps, relu, _ = inputs
    out, _, mean, variance = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, variance)
    ctx.relu, ctx.eps, ctx.shortcut_dtype = relu, eps, None if shortcut is None else shortcut.dtype
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(high, low, weight, mean, variance, out if relu else None)


def _train_backward(ctx: Any, grad_out: Tensor | None, grad_pooled: Tensor | None, *_: Any) -> tuple[Any, ...]:
    """The batch norm's gradient: with zhat = (z - mean) / std, dz = scale (g - mean(g) - zhat mean(g zhat))."""
    high, low, weight, mean, variance, out = ctx.saved_tensors
    if grad_out is None and grad_pooled is None:
        return (None,) * 8
    total, product = triton_tail_sums(high, low, mean, out, grad_out, grad_pooled, ctx.relu)
    inverse = torch.rsqrt(variance + ctx.eps)  # 1 / std
    scale = inverse if weight is None else inverse * weight
    count = high.numel() // high.shape[1]
    k2, k3 = -scale * inverse.square() * product / count, -scale * total / count
    grad_high, grad_shortcut = triton_tail_grad(
        high, low, scale, k2, k3, mean, out, grad_out, grad_pooled, ctx.relu,
        ctx.shortcut_dtype if ctx.needs_input_grad[4] else None,
    )  # fmt: skip
    grad_low = triton_upsample_grad(grad_high, low.dtype) if ctx.needs_input_grad[1] else None
    grad_weight = (product * inverse).to(weight.dtype) if ctx.needs_input_grad[2] else None
    grad_bias = total.to(ctx.bias_dtype) if ctx.needs_input_grad[3] else None
    return (grad_high, grad_low, grad_weight, grad_bias, grad_shortcut if ctx.needs_input_grad[4] else None) + (
        None,
    ) * 3


triton_tail_train.register_autograd(_train_backward, setup_context=_keep_train)
