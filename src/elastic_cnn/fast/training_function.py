"""One elastic (or plain) bottleneck as one autograd function: library convolutions, native passes between them.

    z1 = conv1(x)       a1 = relu(norm1(z1))      z2 = conv2(a1)      a2 = relu(norm2(z2))      z3 = conv3(a2)
    low branch: the same from pool(x), ending in `low`
    y = relu(norm3(z3 + up(low)) + shortcut)          or, left open, norm3(z3 + up(low))

Kept for the backward pass are what the plain form keeps, but for one bit an element in place of the ReLU's output at
the end. Every gradient is the plain form's; the sums are ordered otherwise, so the last bits differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Path:
    """The layers of one branch. Every convolution has no bias; conv1 and conv3 are of any kind, too."""

    conv1: nn.Conv2d
    norm1: nn.BatchNorm2d
    conv2: nn.Conv2d
    norm2: nn.BatchNorm2d
    conv3: nn.Conv2d

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (
            self.conv1.weight, self.norm1.weight, self.norm1.bias,
            self.conv2.weight, self.norm2.weight, self.norm2.bias, self.conv3.weight,
        )  # fmt: skip


@dataclass(frozen=True)
class Layers:
    """A bottleneck: its high branch, its low branch at half resolution where it is elastic, its last norm."""

    high: Path
    low: Path | None
    norm3: nn.BatchNorm2d

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.high,) if self.low is None else (self.high, self.low)

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        return [conv for path in self.paths for conv in (path.conv1, path.conv2, path.conv3)]

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        return [*(norm for path in self.paths for norm in (path.norm1, path.norm2)), self.norm3]


def run_block(layers: Layers, x: Tensor, shortcut: Tensor | None, open_end: bool = False) -> Tensor:
    """The block's output `(N, C_out, H, W)` for `x` `(N, C_in, H, W)`, both channels_last, with norms in training mode.

    shortcut: `(N, C_out, H, W)`, None where it is `x` itself. open_end: without shortcut and last ReLU.
    """
    parameters = [layers.norm3.weight, layers.norm3.bias, *(p for path in layers.paths for p in path.parameters)]
    y: Tensor = BlockFunction.apply(layers, open_end, x, shortcut, *parameters)
    return y


def norm_relu(norm: nn.BatchNorm2d, z: Tensor, relu: bool = True) -> Tensor:
    """relu(norm(z)), or norm(z), of a channels_last map, with the norm in training mode."""
    y: Tensor = NormFunction.apply(norm, relu, z, norm.weight, norm.bias)
    return y


def _running(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, float, float]:
    """Running mean and variance, the factor of this batch in them, eps; counts the batch, as `nn.BatchNorm2d` does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    return norm.running_mean, norm.running_var, momentum, norm.eps


def _norm_forward(norm: nn.BatchNorm2d, z: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    y, statistics = torch.ops.elastic_cnn.train_batch_norm(z, norm.weight, norm.bias, *_running(norm), relu)
    return y, statistics


def _norm_backward_(dy: Tensor, z: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the map (in `dy`'s memory), the weight and the bias of a norm and its ReLU."""
    weight, bias = torch.ops.elastic_cnn.train_batch_norm_backward(dy, z, statistics, True, dy)
    return dy, weight, bias


def _conv_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    z = nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return z.contiguous(memory_format=torch.channels_last)


def _conv_backward(
    conv: nn.Conv2d, dz: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the input and of the weight, those that are needed."""
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dz, x, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups, [*needs, False]
    )
    return (dx.contiguous(memory_format=torch.channels_last) if needs[0] else None), dweight if needs[1] else None


def _path_forward(path: Path, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """conv3's output, and what the backward pass needs."""
    z1 = _conv_forward(path.conv1, x)
    a1, statistics1 = _norm_forward(path.norm1, z1, relu=True)
    z2 = _conv_forward(path.conv2, a1)
    a2, statistics2 = _norm_forward(path.norm2, z2, relu=True)
    return _conv_forward(path.conv3, a2), [x, z1, a1, statistics1, z2, a2, statistics2]


def _path_backward(
    path: Path, dz3: Tensor, kept: Sequence[Tensor], weights: Sequence[Tensor], needs: Sequence[bool]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradients of the branch's input and of its parameters; `needs`: of the input, then of each parameter."""
    x, z1, a1, statistics1, z2, a2, statistics2 = kept
    gradients: list[Tensor | None] = [None] * 7
    da2, gradients[6] = _conv_backward(path.conv3, dz3, a2, weights[2], (any(needs[:7]), needs[7]))
    if da2 is None:
        return None, gradients
    del dz3
    dz2, gradients[4], gradients[5] = _norm_backward_(da2, z2, statistics2)
    da1, gradients[3] = _conv_backward(path.conv2, dz2, a1, weights[1], (any(needs[:4]), needs[4]))
    if da1 is None:
        return None, gradients
    del da2, dz2
    dz1, gradients[1], gradients[2] = _norm_backward_(da1, z1, statistics1)
    dx, gradients[0] = _conv_backward(path.conv1, dz1, x, weights[0], (needs[0], needs[1]))
    return dx, gradients


class BlockFunction(torch.autograd.Function):
    """See the module. Inputs: layers, open_end, x, shortcut, norm3's weight and bias, the parameters of each path."""

    @staticmethod
    def forward(ctx: Any, layers: Layers, open_end: bool, x: Tensor, shortcut: Tensor | None, *_: Tensor) -> Tensor:
        z, kept = _path_forward(layers.high, x)
        low = None
        if layers.low is not None:
            low, kept_low = _path_forward(layers.low, torch.ops.elastic_cnn.train_pool(x))
            kept = [*kept, *kept_low]
        norm = layers.norm3
        residual = None if open_end else x if shortcut is None else shortcut
        y, active, statistics = torch.ops.elastic_cnn.train_tail(
            z, low, residual, norm.weight, norm.bias, *_running(norm)
        )
        weights = [conv.weight for conv in layers.convolutions]
        ctx.save_for_backward(z, active, statistics, *kept, *weights)
        ctx.layers, ctx.open_end, ctx.own_shortcut = layers, open_end, shortcut is None and not open_end
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layers, ops = ctx.layers, torch.ops.elastic_cnn
        z, active, statistics, *saved = ctx.saved_tensors
        kept, weights = saved[: 7 * len(layers.paths)], saved[7 * len(layers.paths) :]
        needs_x, needs_shortcut, needs = ctx.needs_input_grad[2], ctx.needs_input_grad[3], ctx.needs_input_grad[6:]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dz, dlow, dweight, dbias = ops.train_tail_backward(dy, active, z, statistics, layers.low is not None)
        high, gradients = _path_backward(layers.high, dz, kept[:7], weights[:3], (needs_x, *needs[:7]))
        del dz
        pooled = None
        if layers.low is not None:
            pooled, of_low = _path_backward(layers.low, dlow, kept[7:], weights[3:], (needs_x, *needs[7:]))
            gradients = [*gradients, *of_low]
        if high is not None and (ctx.own_shortcut or pooled is not None):
            own = (dy, active) if ctx.own_shortcut else (None, None)
            ops.train_input_gradient(high, *own, pooled)
        shortcut = ops.train_active_gradient(dy, active) if needs_shortcut else None
        return None, None, high, shortcut, dweight, dbias, *gradients


class NormFunction(torch.autograd.Function):
    """A norm and its ReLU. Inputs: norm, relu, z, the norm's weight and bias."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, relu: bool, z: Tensor, *_: Tensor) -> Tensor:
        y, statistics = _norm_forward(norm, z, relu)
        ctx.save_for_backward(z, statistics)
        ctx.relu = relu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        z, statistics = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dz = torch.empty_like(z)
        weight, bias = torch.ops.elastic_cnn.train_batch_norm_backward(dy, z, statistics, ctx.relu, dz)
        return None, None, dz, weight, bias
