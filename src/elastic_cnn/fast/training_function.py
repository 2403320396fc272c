"""One elastic (or plain) bottleneck as one autograd function: library convolutions, native passes between them.

    z1 = conv1(x)       a1 = relu(norm1(z1))      z2 = conv2(a1)      a2 = relu(norm2(z2))      z3 = conv3(a2)
    low branch: the same from pool(x), ending in `low`
    y = relu(norm3(z3 + up(low)) + shortcut)          or, left open, norm3(z3 + up(low))

Kept for the backward pass are what the plain form keeps, but for one bit an element in place of the ReLU's output at
the end, and without a1 where the native passes compute conv2, which make it again from z1. Every gradient is the plain
form's; the sums are ordered otherwise, so the last bits differ. Under autocast maps are bfloat16; weights, statistics
and their gradients stay float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elastic_cnn.fast import training_ops

KEPT = 6  # tensors that a branch keeps for the backward pass


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


def norm_arguments(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
    return norm.weight, norm.bias, *_running(norm)


def _conv_forward(conv: nn.Conv2d, x: Tensor) -> Tensor:
    z = nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
    return z.contiguous(memory_format=torch.channels_last)


def _conv_backward(
    conv: nn.Conv2d, dz: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the input and of the weight, those that are needed."""
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dz,
        x,
        weight.to(dz.dtype),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
        False,
        [0, 0],
        conv.groups,
        [*needs, False],
    )
    return (dx.contiguous(memory_format=torch.channels_last) if needs[0] else None), dweight.to(weight.dtype) if needs[
        1
    ] else None


def _is_pointwise(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the native products compute this convolution."""
    return (
        conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
        and training_ops.own_products(x)
    )  # fmt: skip


def _is_grouped(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the native passes for narrow groups compute this convolution. The library's are as fast for wide ones, in
    bfloat16, where the native ones multiply in float32, from groups of 16 on."""
    widest = 8 if x.dtype == torch.bfloat16 else 16
    return (
        conv.kernel_size == (3, 3) and conv.stride in ((1, 1), (2, 2)) and conv.padding == (1, 1)
        and conv.dilation == (1, 1) and conv.in_channels == conv.out_channels <= widest * conv.groups
        and bool(torch.ops.elastic_cnn.train_has_grouped(conv.in_channels, conv.groups, x.dtype))
    )  # fmt: skip


def _product_statistics(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, a: Tensor, before: Tensor | None, low: Tensor | None
) -> tuple[Tensor, Tensor]:
    """conv's output (of relu(norm(a)), where that norm's statistics `before` are given) + up(low); its statistics."""
    ops = torch.ops.elastic_cnn
    if _is_pointwise(conv, a):
        z, statistics = ops.train_pointwise(a, before, conv.weight, low, *norm_arguments(norm))
        return z, statistics
    z = _conv_forward(conv, a if before is None else ops.train_normalize(a, before, True))
    if low is not None:
        return z, ops.train_sum_statistics(z, low, *norm_arguments(norm))
    return z, ops.train_statistics(z, *norm_arguments(norm))


def _path_forward(path: Path, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """conv2's output with its statistics (norm2 and its ReLU are left to what follows), and what backward needs."""
    ops = torch.ops.elastic_cnn
    z1, statistics1 = _product_statistics(path.conv1, path.norm1, x, None, None)
    if _is_grouped(path.conv2, z1):
        arguments = (path.conv2.weight, path.conv2.stride[0], *norm_arguments(path.norm2))
        z2, statistics2 = ops.train_grouped(z1, statistics1, *arguments)
        return z2, statistics2, [x, z1, None, statistics1, z2, statistics2]
    a1 = ops.train_normalize(z1, statistics1, True)
    z2 = _conv_forward(path.conv2, a1)
    statistics2 = ops.train_statistics(z2, *norm_arguments(path.norm2))
    return z2, statistics2, [x, z1, a1, statistics1, z2, statistics2]


def _last_backward(
    conv: nn.Conv2d, dz3: Tensor, z2: Tensor, statistics2: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of z2, norm2's weight and bias, conv3's weight. `needs`: of what precedes, of conv3's weight."""
    ops = torch.ops.elastic_cnn
    if _is_pointwise(conv, dz3):
        dweight = ops.train_pointwise_weight_gradient(dz3, z2, statistics2) if needs[1] else None
        of_norm = ops.train_pointwise_norm_gradient(dz3, weight, z2, statistics2) if needs[0] else (None, None, None)
        return *of_norm, dweight
    da2, dweight = _conv_backward(conv, dz3, ops.train_normalize(z2, statistics2, True), weight, needs)
    if da2 is None:
        return None, None, None, dweight
    return da2, *ops.train_batch_norm_backward(da2, z2, statistics2, True, da2), dweight


def _middle_backward(
    conv: nn.Conv2d,
    dz2: Tensor,
    z1: Tensor,
    a1: Tensor | None,
    statistics1: Tensor,
    weight: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of z1, norm1's weight and bias, conv2's weight. `needs`: of what precedes, of conv2's weight."""
    ops = torch.ops.elastic_cnn
    if a1 is None:
        stride = conv.stride[0]
        dweight = ops.train_grouped_weight_gradient(dz2, z1, statistics1, weight, stride) if needs[1] else None
        if not needs[0]:
            return None, None, None, dweight
        return *ops.train_grouped_norm_gradient(dz2, weight, z1, statistics1, stride), dweight
    da1, dweight = _conv_backward(conv, dz2, a1, weight, needs)
    if da1 is None:
        return None, None, None, dweight
    return da1, *ops.train_batch_norm_backward(da1, z1, statistics1, True, da1), dweight


def _first_backward(
    conv: nn.Conv2d, dz1: Tensor, x: Tensor, weight: Tensor, others: Sequence[Tensor | None], needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x, with `others` (dy and active of an identity shortcut, the pooled map's), and the weight."""
    ops = torch.ops.elastic_cnn
    if _is_pointwise(conv, dz1):
        dweight = ops.train_pointwise_weight_gradient(dz1, x, None) if needs[1] else None
        return (ops.train_pointwise_input_gradient(dz1, weight, *others) if needs[0] else None), dweight
    dx, dweight = _conv_backward(conv, dz1, x, weight, needs)
    if dx is not None:
        ops.train_input_gradient(dx, *others)
    return dx, dweight


def _last_forward(conv: nn.Conv2d, z2: Tensor, statistics2: Tensor) -> Tensor:
    """conv3's output of relu(norm2(z2))."""
    ops = torch.ops.elastic_cnn
    if not _is_pointwise(conv, z2):
        return _conv_forward(conv, ops.train_normalize(z2, statistics2, True))
    z: Tensor = ops.train_pointwise(z2, statistics2, conv.weight, None, None, None, None, None, 0.0, 0.0)[0]
    return z


def _path_backward(
    path: Path,
    dz3: Tensor,
    kept: Sequence[Any],
    weights: Sequence[Tensor],
    others: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> tuple[Tensor | None, list[Tensor | None]]:
    """The gradients of the branch's input and of its parameters; `needs`: of the input, then of each parameter."""
    x, z1, a1, statistics1, z2, statistics2 = kept
    gradients: list[Tensor | None] = [None] * 7
    wanted = (any(needs[:7]), needs[7])
    dz2, *gradients[4:] = _last_backward(path.conv3, dz3, z2, statistics2, weights[2], wanted)
    if dz2 is None:
        return None, gradients
    wanted = (any(needs[:4]), needs[4])
    dz1, *gradients[1:4] = _middle_backward(path.conv2, dz2, z1, a1, statistics1, weights[1], wanted)
    if dz1 is None:
        return None, gradients
    del dz2
    dx, gradients[0] = _first_backward(path.conv1, dz1, x, weights[0], others, (needs[0], needs[1]))
    return dx, gradients


class BlockFunction(torch.autograd.Function):
    """See the module. Inputs: layers, open_end, x, shortcut, norm3's weight and bias, the parameters of each path."""

    @staticmethod
    def forward(ctx: Any, layers: Layers, open_end: bool, x: Tensor, shortcut: Tensor | None, *_: Tensor) -> Tensor:
        ops = torch.ops.elastic_cnn
        low: Tensor | None = None
        kept_low: list[Tensor | None] = []
        if layers.low is not None:
            last, statistics, kept_low = _path_forward(layers.low, ops.train_pool(x))
            low = _last_forward(layers.low.conv3, last, statistics)
        last, statistics, kept = _path_forward(layers.high, x)
        z, statistics = _product_statistics(layers.high.conv3, layers.norm3, last, statistics, low)
        if open_end:
            y, active = ops.train_normalize(z, statistics, False), torch.empty(0, dtype=torch.uint8)
        else:
            y, active = ops.train_finish(z, statistics, x if shortcut is None else shortcut)
        weights = [conv.weight for conv in layers.convolutions]
        ctx.save_for_backward(z, active, statistics, *kept, *kept_low, *weights)
        ctx.layers, ctx.own_shortcut = layers, shortcut is None and not open_end
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        layers, ops = ctx.layers, torch.ops.elastic_cnn
        z, active, statistics, *saved = ctx.saved_tensors
        kept, weights = saved[: KEPT * len(layers.paths)], saved[KEPT * len(layers.paths) :]
        needs_x, needs_shortcut, needs = ctx.needs_input_grad[2], ctx.needs_input_grad[3], ctx.needs_input_grad[6:]
        dy = dy.contiguous(memory_format=torch.channels_last)
        dz, dlow, dweight, dbias = ops.train_tail_backward(dy, active, z, statistics, layers.low is not None)
        pooled: Tensor | None = None
        of_low: list[Tensor | None] = []
        if layers.low is not None:
            nothing = (None, None, None)
            pooled, of_low = _path_backward(layers.low, dlow, kept[KEPT:], weights[3:], nothing, (needs_x, *needs[7:]))
        others = (dy, active, pooled) if ctx.own_shortcut else (None, None, pooled)
        dx, of_high = _path_backward(layers.high, dz, kept[:KEPT], weights[:3], others, (needs_x, *needs[:7]))
        shortcut = ops.train_active_gradient(dy, active) if needs_shortcut else None
        return None, None, dx, shortcut, dweight, dbias, *of_high, *of_low


class NormFunction(torch.autograd.Function):
    """A norm and its ReLU. Inputs: norm, relu, z, the norm's weight and bias."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, relu: bool, z: Tensor, *_: Tensor) -> Tensor:
        statistics = torch.ops.elastic_cnn.train_statistics(z, *norm_arguments(norm))
        y = torch.ops.elastic_cnn.train_normalize(z, statistics, relu)
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
