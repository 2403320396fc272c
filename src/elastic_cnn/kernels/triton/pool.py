"""Average pooling by 2 as a custom operator with fake and gradient."""

from typing import Any

import torch
from torch import Tensor

from elastic_cnn.kernels.triton.launch import empty_like, gapless, in_format_of, lay_out, low_shape, on_device


@torch.library.custom_op("elastic_cnn::triton_pool", mutates_args=())
def triton_pool(x: Tensor) -> Tensor:
    """`(N, C, H, W)` -> `(N, C, ceil(H / 2), ceil(W / 2))`: the mean over what lies inside each 2 x 2 window."""
    from elastic_cnn.kernels.triton.forward import pool_kernel

    x = gapless(x)
    pooled = empty_like(x, low_shape(x))
    if x.numel():
        grid = lay_out(x)
        with on_device(x):
            pool_kernel[(grid.blocks, grid.channel_blocks)](x, pooled, *grid.sizes, **grid.constants(x))
    return pooled


@triton_pool.register_fake
def _(x):
    return empty_like(x, low_shape(x))


@torch.library.custom_op("elastic_cnn::triton_pool_grad", mutates_args=())
def triton_pool_grad(grad_pooled: Tensor, height: int, width: int) -> Tensor:
    """The gradient `(N, C, height, width)` of `triton_pool`'s input."""
    from elastic_cnn.kernels.triton.backward import pool_grad_kernel

    grad_pooled = gapless(grad_pooled)
    grad = empty_like(grad_pooled, (*grad_pooled.shape[:2], height, width))
    if grad.numel():
        grid = lay_out(grad)
        with on_device(grad):
            pool_grad_kernel[(grid.blocks, grid.channel_blocks)](
                in_format_of(grad_pooled, grad), grad, *grid.sizes, **grid.constants(grad)
            )
    return grad


@triton_pool_grad.register_fake
def _(grad_pooled, height, width):
    return empty_like(grad_pooled, (*grad_pooled.shape[:2], height, width))


def _keep_pool(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.size = inputs[0].shape[-2:]


def _pool_backward(ctx: Any, grad_pooled: Tensor) -> Tensor:
    return triton_pool_grad(grad_pooled, *ctx.size)


triton_pool.register_autograd(_pool_backward, setup_context=_keep_pool)
