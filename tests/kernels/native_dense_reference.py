"""DenseNet's steps with random weights, and what they compute, written with torch's own layers in float64."""

import torch
import torch.nn.functional as F
from native_blocks_reference import pool2, random, up2
from torch import Tensor

from elastic_cnn.kernels.packing_dense import DenseBranch, DenseLayer, LastNorm, Transition

Step = DenseLayer | Transition | LastNorm


def random_norm(channels: int) -> tuple[Tensor, Tensor]:
    """(scale, shift), scales of both signs."""
    return torch.randn(channels, dtype=torch.float64), random(channels, over=4)


def random_dense_branch(channels: int, inner: int, growth: int) -> DenseBranch:
    return DenseBranch(
        random(inner, channels, over=channels),
        random(inner, over=4),
        random(growth, inner, 3, 3, over=9 * inner),
    )


def random_layer(channels: int, growth: int, inner: int, low: int = 0) -> DenseLayer:
    """`inner` and `low` channels between the convolutions of the two resolutions, low 0 for one resolution."""
    return DenseLayer(
        *random_norm(channels),
        random_dense_branch(channels, inner, growth),
        random(growth, over=4),
        random_dense_branch(channels, low, growth) if low else None,
    )


def random_transition(channels: int, out: int) -> Transition:
    return Transition(*random_norm(channels), random(out, channels, over=channels), random(out, over=4))


def random_trunk(channels: int, layers: list[tuple[int, int, int]], out: int = 0, normed: bool = False) -> list[Step]:
    """A dense block of layers (growth, inner, low), and behind it a transition to `out` channels or the last norm."""
    steps: list[Step] = []
    for growth, inner, low in layers:
        steps.append(random_layer(channels, growth, inner, low))
        channels += growth
    if out:
        steps.append(random_transition(channels, out))
    elif normed:
        steps.append(LastNorm(*random_norm(channels)))
    return steps


def run_dense_branch(branch: DenseBranch, y: Tensor) -> Tensor:
    return F.conv2d(F.relu(F.conv2d(y, branch.w1[..., None, None], branch.b1)), branch.w2, padding=1)


def run_step(step: Step, x: Tensor) -> Tensor:
    y = F.relu(x * step.scale[:, None, None] + step.shift[:, None, None])
    if isinstance(step, LastNorm):
        return y
    if isinstance(step, Transition):
        return F.avg_pool2d(F.conv2d(y, step.weight[..., None, None], step.bias), 2)
    new = run_dense_branch(step.high, y) + step.bias[:, None, None]
    if step.low is not None:
        new = new + up2(run_dense_branch(step.low, pool2(y)), *x.shape[2:])
    return torch.cat([x, new], 1)


def run_steps(steps: list[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = run_step(step, x)
    return x
