"""What the tail's gradients are made of, as custom operators with fakes: a compiled backward pass holds them."""

import torch
from torch import Tensor

from elastic_cnn.kernels.triton.launch import (
    empty_like,
    gapless,
    in_format_of,
    lay_out,
    low_shape,
    on_device,
    sum_dtype,
)


@torch.library.custom_op("elastic_cnn::triton_tail_sums", mutates_args=())
def triton_tail_sums(
    high: Tensor,
    low: Tensor | None,
    centre: Tensor | None,
    out: Tensor | None,
    grad_out: Tensor | None,
    grad_pooled: Tensor | None,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """The sums over a channel of g and of g (high + up(low) - centre), `(C,)` each; see backward.py for g."""
    from elastic_cnn.kernels.triton.backward import sums_kernel

    high = gapless(high)
    grid = lay_out(high)
    dtype = sum_dtype(high)
    low = in_format_of(low, high) if low is not None else high.new_zeros(low_shape(high))
    centre = torch.zeros(grid.high[0], device=high.device, dtype=dtype) if centre is None else centre
    sums = torch.empty(2, grid.reducers, grid.high[0], device=high.device, dtype=dtype)
    given = [None if tensor is None else in_format_of(tensor, high) for tensor in (out, grad_out, grad_pooled)]
    with on_device(high):
        sums_kernel[(grid.reducers, grid.channel_blocks)](
            high, low, centre, *given, *sums.unbind(0), grid.blocks, *grid.sizes, grid.reducers,
            RELU=relu, GRAD_OUT=grad_out is not None, GRAD_POOLED=grad_pooled is not None, **grid.constants(high),
        )  # fmt: skip
    total, product = sums.sum(1).unbind(0)
    return total.clone(), product.clone()


@triton_tail_sums.register_fake
def _(high, low, centre, out, grad_out, grad_pooled, relu):
    sums = high.new_empty((high.shape[1],), dtype=sum_dtype(high))
    return sums, torch.empty_like(sums)


@torch.library.custom_op("elastic_cnn::triton_tail_grad", mutates_args=())
def triton_tail_grad(
    high: Tensor,
    low: Tensor | None,
    k1: Tensor | None,
    k2: Tensor | None,
    k3: Tensor | None,
    centre: Tensor | None,
    out: Tensor | None,
    grad_out: Tensor | None,
    grad_pooled: Tensor | None,
    relu: bool,
    shortcut: torch.dtype | None,
) -> tuple[Tensor, Tensor]:
    """The gradients of `high` and, in dtype `shortcut`, of the shortcut (None: an empty tensor); see backward.py."""
    from elastic_cnn.kernels.triton.backward import grad_kernel

    high = gapless(high)
    grad_high, grad_shortcut = _empty_gradients(high, shortcut)
    grid = lay_out(high)
    low = None if low is None else in_format_of(low, high)
    given = [None if tensor is None else in_format_of(tensor, high) for tensor in (out, grad_out, grad_pooled)]
    with on_device(high):
        grad_kernel[(grid.blocks, grid.channel_blocks)](
            high, low, k1, k2, k3, centre, *given, grad_high, grad_shortcut, *grid.sizes,
            RELU=relu, GRAD_OUT=grad_out is not None, GRAD_POOLED=grad_pooled is not None, SCALE=k1 is not None,
            STATISTICS=k2 is not None, SHORTCUT=shortcut is not None, **grid.constants(high),
        )  # fmt: skip
    return grad_high, grad_shortcut


def _empty_gradients(high: Tensor, shortcut: torch.dtype | None) -> tuple[Tensor, Tensor]:
    return empty_like(high), high.new_empty((0,)) if shortcut is None else empty_like(high, dtype=shortcut)


@triton_tail_grad.register_fake
def _(high, low, k1, k2, k3, centre, out, grad_out, grad_pooled, relu, shortcut):
    return _empty_gradients(high, shortcut)


@torch.library.custom_op("elastic_cnn::triton_upsample_grad", mutates_args=())
def triton_upsample_grad(grad_high: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of `low` from that of `up(low)`: `(N, C, H, W)` -> `(N, C, ceil(H / 2), ceil(W / 2))`."""
    from elastic_cnn.kernels.triton.backward import upsample_grad_kernel

    grad_high = gapless(grad_high)
    grad_low = empty_like(grad_high, low_shape(grad_high), dtype)
    grid = lay_out(grad_high)
    with on_device(grad_high):
        upsample_grad_kernel[(grid.blocks, grid.channel_blocks)](
            grad_high, grad_low, *grid.sizes, **grid.constants(grad_high)
        )
    return grad_low


@triton_upsample_grad.register_fake
def _(grad_high, dtype):
    return empty_like(grad_high, low_shape(grad_high), dtype)
