"""One convolution made elastic: Equation 3 where no block around it is known.

    dense      y = W_hi * x_hi + U(W_lo * D(x_lo))         the weight divided along its input channels
    grouped    y = [W_hi * x_hi, U(W_lo * D(x_lo))]        the groups divided, depthwise ones included
    outputs    y = [W_hi * x,    U(W_lo * D(x))]           where a weight is standardised over its inputs

Every number of the layer lands in one branch: with D = U = identity it is the layer's own function.
"""

from collections import OrderedDict

from torch import nn

from elastic_cnn.nn.branches import ElasticSpec, PartedBranches, make_branches
from elastic_cnn.nn.split import CannotDivide, divide_count, divide_groups, divide_inputs, divide_outputs

# Convolutions whose effective weight is normalised over each output's inputs: only their outputs can be divided.
STANDARDIZED = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
PLAIN = ("Conv2d", "Conv2dSame")


class ElasticConv2d(PartedBranches):
    """A convolution over several resolutions: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width."""

    parts: list[int]  # said again: TorchScript reads a class's own annotations


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
    return ElasticConv2d(make_branches(transforms, spec, probe="conv"), parts, concatenates=concatenates(conv))


def concatenates(conv: nn.Conv2d) -> bool:
    """Whether the pieces of a divided convolution hold its outputs side by side, not terms of a sum."""
    return conv.groups > 1 or type(conv).__name__ in STANDARDIZED
