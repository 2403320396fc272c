"""The functions that networks call: the kernels where they serve, plain PyTorch elsewhere."""

import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.kernels.triton.launch import serves
from elastic_cnn.kernels.triton.operators import triton_tail, triton_tail_train
from elastic_cnn.kernels.triton.pool import triton_pool


def area_pool(x: Tensor) -> Tensor:
    """`(N, C, H, W)` -> `(N, C, ceil(H / 2), ceil(W / 2))`: the mean over what lies inside each 2 x 2 window."""
    if serves(x):
        return triton_pool(x)
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)


def elastic_tail(
    high: Tensor,
    low: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    shortcut: Tensor | None = None,
    relu: bool = True,
    pool: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`(out, pooled)`: `out = relu(scale * (high + up(low)) + bias + shortcut)`; with `pool` its 2 x 2 mean, else None.

    high, shortcut, out: `(N, C, H, W)`, any height and width; low, pooled: `(N, C, ceil(H / 2), ceil(W / 2))`;
    scale, bias: `(C,)`. `up` is bilinear by 2 with half-pixel centres, cropped to H x W. Source: Equation 3 of the
    paper, two scales. `ValueError` where the shapes do not fit.
    """
    if serves(high):
        out, pooled = triton_tail(high, low, scale, bias, shortcut, relu, pool)
        return out, pooled if pool else None
    y = upsampled_sum(high, low)
    if scale is not None:
        y = y * scale.to(y.dtype).view(-1, 1, 1)
    if bias is not None:
        y = y + bias.to(y.dtype).view(-1, 1, 1)
    return _finish(y, shortcut, relu, pool)


def elastic_tail_train(
    high: Tensor,
    low: Tensor,
    norm: nn.BatchNorm2d,
    shortcut: Tensor | None = None,
    relu: bool = True,
    pool: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`elastic_tail` with `norm` in training: statistics from this batch, running ones updated as torch does."""
    if not serves(high):
        return _finish(norm(upsampled_sum(high, low)), shortcut, relu, pool)
    out, pooled, mean, variance = triton_tail_train(high, low, norm.weight, norm.bias, shortcut, norm.eps, relu, pool)
    update_running_statistics(norm, mean, variance, high.numel() // high.shape[1])
    return out, pooled if pool else None


def upsampled_sum(high: Tensor, low: Tensor) -> Tensor:
    """`high + up(low)`, plainly."""
    up = F.interpolate(low, scale_factor=2.0, mode="bilinear", align_corners=False)
    return high + up[..., : high.shape[-2], : high.shape[-1]]


def _finish(y: Tensor, shortcut: Tensor | None, relu: bool, pool: bool) -> tuple[Tensor, Tensor | None]:
    if shortcut is not None:
        y = y + shortcut
    if relu:
        y = F.relu(y)
    return y, area_pool(y) if pool else None


def update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Blend a batch's mean and biased variance over `count` pixels into the norm's running ones, as torch does."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    momentum: float | Tensor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:  # the mean of all batches
            momentum = 1.0 / norm.num_batches_tracked.to(mean.dtype)
    unbiased = variance.detach() * (count / max(1, count - 1))
    norm.running_mean += momentum * (mean.detach().to(norm.running_mean.dtype) - norm.running_mean)
    norm.running_var += momentum * (unbiased.to(norm.running_var.dtype) - norm.running_var)
