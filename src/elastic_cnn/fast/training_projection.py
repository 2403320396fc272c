"""A 1 x 1 convolution of any stride and the norm after it (a shortcut's projection) as one autograd function.

    z = conv(x at every stride-th pixel), with its statistics on the way      y = norm(z), or relu(norm(z))

Kept for the backward pass are x, z and the statistics; the pixels of x that count are picked out of it again.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elastic_cnn.fast.training_function import norm_arguments


def is_projection(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether these layers are such a convolution and norm, and the native products compute them."""
    return (
        type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and conv.kernel_size == (1, 1)
        and conv.padding == (0, 0) and conv.groups == 1 and conv.bias is None and conv.stride[0] == conv.stride[1]
    )  # fmt: skip


def project(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, relu: bool) -> Tensor:
    """norm(conv(x)), with a ReLU if wanted, of a channels_last map `(N, C_in, H, W)`, the norm in training mode."""
    y: Tensor = ProjectionFunction.apply(conv, norm, relu, x, conv.weight, norm.weight, norm.bias)
    return y


def _picked(x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else x[:, :, ::stride, ::stride].contiguous(memory_format=torch.channels_last)


class ProjectionFunction(torch.autograd.Function):
    """See the module. Inputs: conv, norm, relu, x, the convolution's weight, the norm's weight and bias."""

    @staticmethod
    def forward(ctx: Any, conv: nn.Conv2d, norm: nn.BatchNorm2d, relu: bool, x: Tensor, *_: Tensor) -> Tensor:
        ops = torch.ops.elastic_cnn
        ctx.stride, ctx.relu = conv.stride[0], relu
        picked = _picked(x, ctx.stride)
        z, statistics = ops.train_pointwise(picked, None, conv.weight, None, *norm_arguments(norm))
        ctx.save_for_backward(x, z, statistics, conv.weight)
        y: Tensor = ops.train_normalize(z, statistics, relu)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        ops = torch.ops.elastic_cnn
        x, z, statistics, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dz = torch.empty_like(z)
        of_norm = ops.train_batch_norm_backward(dy, z, statistics, ctx.relu, dz)
        dx = dweight = None
        if ctx.needs_input_grad[4]:
            dweight = ops.train_pointwise_weight_gradient(dz, _picked(x, ctx.stride), None)
        if ctx.needs_input_grad[3]:
            dx = ops.train_pointwise_input_gradient(dz, weight, None, None, None)
            if ctx.stride > 1:
                picked, dx = dx, torch.zeros_like(x)
                dx[:, :, :: ctx.stride, :: ctx.stride] = picked
        return None, None, None, dx, dweight, *of_norm
