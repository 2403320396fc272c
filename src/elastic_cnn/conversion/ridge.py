"""Ridge regression by sums: the change of a convolution's weights that makes up for what its output lacks.

A convolution, the resampling behind it and the sum over branches are linear in the weights, so the weights that come
nearest to a wished output, in the mean square over all positions of all photos, solve linear equations. With features F
(what each weight multiplies) and R (what is missing), the change W solves

    (F'F + ridge * mean(diag F'F) I) W = F'R

so that W = 0, the trained weights, is what the ridge pulls to. A batch is summed in float32, totals and solution are in
float64.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.padding import pad_same
from torch import Tensor, nn


class NormalEquations:
    """Totals for `groups` regressions side by side, of `outputs` on `features` (the last one may be a constant)."""

    def __init__(self, groups: int, features: int, outputs: int, device: torch.device) -> None:
        self.gram = torch.zeros(groups, features, features, dtype=torch.float64, device=device)
        self.moment = torch.zeros(groups, features, outputs, dtype=torch.float64, device=device)

    def add(self, features: Tensor, missing: Tensor) -> None:
        """features: (G, M, K) at M positions; missing: (G, M, O)."""
        transposed = features.transpose(1, 2)
        self.gram += transposed @ features
        self.moment += transposed @ missing

    def solve(self, ridge: float) -> Tensor:
        """The change of the weights, (G, K, O); zero where a group saw nothing but zeros."""
        diagonal = self.gram.diagonal(dim1=1, dim2=2).mean(1)  # (G,)
        pull = (ridge * diagonal).clamp_min(torch.finfo(torch.float64).tiny)[:, None, None]
        matrix = self.gram + pull * torch.eye(self.gram.shape[1], dtype=torch.float64, device=pull.device)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve(self.moment, factor)
        good = (failed == 0) & solution.isfinite().all(2).all(1)
        return torch.where(good[:, None, None], solution, 0.0).float()


def shifts(conv: nn.Conv2d, x: Tensor) -> Iterator[Tensor]:
    """What each position of the kernel sees, row by row: (N, C, H, W) -> maps `(N, C, H', W')`; stride 1."""
    rows, columns = conv.kernel_size
    (down, right) = conv.dilation
    x = _padded(conv, x)
    height, width = x.shape[-2] - down * (rows - 1), x.shape[-1] - right * (columns - 1)
    for i in range(rows):
        for j in range(columns):
            yield x[..., i * down : i * down + height, j * right : j * right + width]


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
