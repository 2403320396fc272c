"""One convolution made elastic: Equation 3 where no block around it is known.

    dense      y = W_hi * x_hi + U(W_lo * D(x_lo))         the weight divided along its input channels
    grouped    y = [W_hi * x_hi, U(W_lo * D(x_lo))]        the groups divided, depthwise ones included
    outputs    y = [W_hi * x,    U(W_lo * D(x))]           where a weight is standardised over its inputs

Every number of the layer lands in one branch: with D = U = identity it is the layer's own function.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from elastic_cnn.nn.branches import ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.resample import crop
from elastic_cnn.nn.split import CannotDivide, divide_count, divide_groups, divide_inputs, divide_outputs

# Convolutions whose effective weight is normalised over each output's inputs: only their outputs can be divided.
STANDARDIZED = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
PLAIN = ("Conv2d", "Conv2dSame")


class ElasticConv2d(ElasticBranches):
    """A convolution over several resolutions: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    parts: input channels of each branch, or empty where each sees all of them.
    """

    parts: list[int]
    concatenates: Final[bool]

    def __init__(self, branches: ElasticBranches, parts: Sequence[int], concatenates: bool):
        super().__init__([branches.high, *branches.low])
        self.parts = list(parts)
        self.concatenates = concatenates

    def forward(self, x: Tensor) -> Tensor:
        inputs = torch.split(x, self.parts, dim=1) if len(self.parts) > 0 else [x] * (1 + len(self.low))
        outputs = [self.high(inputs[0])]
        height, width = outputs[0].shape[-2:]
        for i, branch in enumerate(self.low):
            low = branch(inputs[i + 1])
            outputs.append(crop(low, height, width) if branch.resamples else low)
        if self.concatenates:
            return torch.cat(outputs, dim=1)
        y = outputs[0]
        for low in outputs[1:]:
            y = y + low
        return y

    def extra_repr(self) -> str:
        return f"parts={self.parts}, concatenates={self.concatenates}"


def convert_convolution(conv: nn.Conv2d, spec: ElasticSpec) -> ElasticConv2d:
    """An elastic convolution with the weights of `conv`, which must keep the map's size.

    `CannotDivide` where the channels or groups are too few for the shares, where it has a stride, and for a subclass of
    `Conv2d` whose arithmetic is not known here.
    """
    kind = type(conv).__name__
    if kind not in PLAIN and kind not in STANDARDIZED:
        raise CannotDivide(f"{kind} is not a plain convolution")
    if max(conv.stride) > 1:
        raise CannotDivide("changes the resolution")
    parts: list[int] = []
    if conv.groups > 1:
        groups = divide_count(conv.groups, spec.shares, "groups")
        pieces = divide_groups(conv, groups)
        parts = [piece.in_channels for piece in pieces]
    elif kind in STANDARDIZED:
        pieces = divide_outputs(conv, divide_count(conv.out_channels, spec.shares, "output channels"))
    else:
        parts = divide_count(conv.in_channels, spec.shares, "input channels")
        pieces = divide_inputs(conv, parts)
    transforms = [nn.Sequential(OrderedDict(conv=piece)) for piece in pieces]
    return ElasticConv2d(make_branches(transforms, spec, probe="conv"), parts, concatenates=_concatenates(conv))


def _concatenates(conv: nn.Conv2d) -> bool:
    return conv.groups > 1 or type(conv).__name__ in STANDARDIZED
