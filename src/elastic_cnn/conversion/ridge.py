"""Ridge regression by sums: the change of a convolution's weights that makes up for what its output lacks.

A convolution, the resampling behind it and the sum over branches are linear in the weights, so the weights that come
nearest to a target output, in the mean square over all positions of all photos, solve linear equations. With features F
(what each weight multiplies) and R (what is missing), the change W solves

    (F'F + ridge * mean(diag F'F) I) W = F'R

so that W = 0, the trained weights, is what the ridge pulls to. How strongly is chosen on photos held out: a deep
layer has thousands of weights an output and sees few positions of each photo. A batch is summed in float32, totals
and solution are in float64."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.padding import pad_same
from torch import Tensor, nn

RIDGES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)  # that are chosen from
STRIP = 512  # features at a time
DRAFT_OUTPUTS = 64  # by which a ridge is chosen, about
HOLD_OUT = 4  # one photo of so many is held out to choose


class NormalEquations:
    """Totals for `groups` regressions side by side, of `outputs` on `features`; behind them, where `constant` says
    so, on a constant, which nothing pulls."""

    def __init__(self, gram: Tensor, moment: Tensor, pulled: int) -> None:
        self.gram, self.moment, self.pulled = gram, moment, pulled

    @classmethod
    def empty(cls, groups: int, features: int, constant: bool, outputs: int, device: torch.device) -> "NormalEquations":
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        columns = features + constant
        gram, moment = ((groups, columns, size) for size in (columns, outputs))
        return cls(torch.zeros(gram, **options), torch.zeros(moment, **options), features)

    def add(self, features: Tensor, missing: Tensor) -> None:
        """features: (G, M, K) at M positions; missing: (G, M, O)."""
        transposed = features.transpose(1, 2)
        for begin in range(0, features.shape[2], STRIP):  # symmetric: what lies below these strips is left out
            self.gram[:, begin : begin + STRIP, begin:] += transposed[:, begin : begin + STRIP] @ features[:, :, begin:]
        self.moment += transposed @ missing

    def plus(self, other: "NormalEquations") -> "NormalEquations":
        """Both together; takes the place of this one."""
        self.gram += other.gram
        self.moment += other.moment
        return self

    def solve(self, ridge: float) -> Tensor:
        """The change of the weights, (G, K, O); zero where a group saw nothing but zeros."""
        matrix = self.gram.clone()
        diagonal = matrix.diagonal(dim1=1, dim2=2)[:, : self.pulled]  # (G, K)
        diagonal += (ridge * diagonal.mean(1, keepdim=True)).clamp_min(torch.finfo(matrix.dtype).tiny)
        factor, failed = torch.linalg.cholesky_ex(matrix, upper=True)
        solution = torch.cholesky_solve(self.moment, factor, upper=True)
        good = (failed == 0) & solution.isfinite().all(2).all(1)
        return torch.where(good[:, None, None], solution, 0.0)

    def draft(self) -> "NormalEquations":
        """For some of the outputs, in single precision: enough to choose a ridge by, in a fraction of the time."""
        every = -(-self.moment.shape[2] // DRAFT_OUTPUTS)
        gram = self.gram.float()
        return NormalEquations(
            gram.triu() + gram.triu(1).transpose(1, 2), self.moment[:, :, ::every].float(), self.pulled
        )

    def gain(self, change: Tensor) -> float:
        """By how much this change of the weights lowers the summed squares of what is missing; of a draft."""
        return float((change * (2 * self.moment - self.gram @ change)).sum())


def best_ridge(fit: NormalEquations, held: NormalEquations, ridges: Sequence[float] = RIDGES) -> float:
    """The ridge with which the solution of `fit` lowers the error most on what was `held` out. Gains rise and fall once
    along the ridges: from the middle on, uphill."""
    fit, held = fit.draft(), held.draft()
    gains: dict[int, float] = {}

    def gain(number: int) -> float:
        if number not in gains:
            gains[number] = held.gain(fit.solve(ridges[number]))
        return gains[number]

    at = len(ridges) // 2
    for step in (1, -1):
        while 0 <= at + step < len(ridges) and gain(at + step) > gain(at):
            at += step
    return ridges[at]


def shifts(conv: nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """What each position of the kernel sees, row by row: (N, C, H, W) -> maps `(N, C, H', W')`, as the output."""
    rows, columns = conv.kernel_size
    (down, right) = conv.dilation
    x = _padded(conv, x)
    height, width = x.shape[-2] - down * (rows - 1), x.shape[-1] - right * (columns - 1)
    for i in range(rows):
        for j in range(columns):
            yield x[..., i * down : i * down + height : conv.stride[0], j * right : j * right + width : conv.stride[1]]


def _padded(conv: Any, x: Tensor) -> Tensor:
    if type(conv).__name__.endswith("Same"):
        return pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    border = list(conv._reversed_padding_repeated_twice)
    return F.pad(x, border) if conv.padding_mode == "zeros" else F.pad(x, border, mode=conv.padding_mode)


def rows_of(x: Tensor, positions: Tensor) -> Tensor:
    """(N, C, H, W) -> the channels at these positions of all N * H * W, (M, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])[positions]


def add_to_weight(conv: nn.Conv2d, change: Tensor) -> None:
    """change: (G, kernel positions * channels, outputs of a group), features in the order of `shifts`; in place."""
    groups, _, outputs = change.shape
    rows, columns = conv.kernel_size
    change = change.view(groups, rows, columns, -1, outputs).permute(0, 4, 3, 1, 2).flatten(0, 1)  # (O, C, kh, kw)
    conv.weight.data += change.to(conv.weight)
