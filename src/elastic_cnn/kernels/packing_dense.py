"""Weights of DenseNet's trunk in the order in which the native kernels read them (`cpu/inference/dense_plan.h`).

Matrices become panels of 32 outputs, `[panel][input][32]`, 3x3 convolutions `[panel][tap][input][32]`. The 1/4 of 2x2
poolings and the 1/16 of the doubling lie in the weights behind and before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from elastic_cnn.kernels.packing import Packed, float_words, in_panels, join, words

INPUT, LAYER, TRANSITION, NORM = range(4)  # kinds of a plan's rows


@dataclass(frozen=True)
class DenseBranch:
    """conv1 (1x1), ReLU, conv2 (3x3, padding 1) of one resolution: w1 (P, C), b1 (P,), w2 (growth, P, 3, 3)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor


@dataclass(frozen=True)
class DenseLayer:
    """high(y) + up2(low(pool2(y))) + bias of y = relu(scale * x + shift): C channels to `growth` new ones.

    scale, shift (C,); bias (growth,).
    """

    scale: Tensor
    shift: Tensor
    high: DenseBranch
    bias: Tensor
    low: DenseBranch | None = None


@dataclass(frozen=True)
class Transition:
    """avg_pool2d(conv(relu(scale * x + shift)), 2): scale, shift (C,), weight (C', C), bias (C',)."""

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class LastNorm:
    """relu(scale * x + shift): (C,) each."""

    scale: Tensor
    shift: Tensor


def pack_dense(steps: Sequence[DenseLayer | Transition | LastNorm], dtype: torch.dtype = torch.float32) -> Packed:
    """The trunk as `dense_blocks` takes it; its first step is a layer or a transition. Rounded once, from float64."""
    plan = [INPUT, len(steps[0].scale), 0, 0]
    pieces: list[Tensor] = []
    for step in steps:
        pieces += [float_words(step.scale), float_words(step.shift)]
        if isinstance(step, DenseLayer):
            pieces += _branch(step.high, 1.0, 1.0, dtype)
            if step.low is not None:
                pieces += _branch(step.low, 0.25, 1 / 16, dtype)
            pieces.append(float_words(step.bias))
            plan += [LAYER, len(step.bias), len(step.high.b1), 0 if step.low is None else len(step.low.b1)]
        elif isinstance(step, Transition):
            pieces += [words(in_panels(step.weight.detach().double() / 4), dtype), float_words(step.bias)]
            plan += [TRANSITION, len(step.bias), 0, 0]
        else:
            plan += [NORM, 0, 0, 0]
    return Packed(join(pieces, dtype), plan)


def _branch(branch: DenseBranch, scale_in: float, scale_out: float, dtype: torch.dtype) -> list[Tensor]:
    w1, w2 = branch.w1.detach().double().flatten(1), branch.w2.detach().double()
    taps = in_panels(w2.permute(0, 2, 3, 1) * scale_out).unflatten(1, (9, -1))  # (panels, 9, P, 32)
    return [words(in_panels(w1 * scale_in), dtype), float_words(branch.b1), words(taps, dtype)]
