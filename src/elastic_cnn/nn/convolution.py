"""One convolution made elastic: Equation 3 where no block around it is known.

    one group  y = W_hi * x_hi + U(W_lo * D(x_lo))         the weight divided along its input channels
    grouped    y = [W_hi * x_hi, U(W_lo * D(x_lo))]        the groups divided, depthwise ones included
    outputs    y = [W_hi * x,    U(W_lo * D(x))]           where a weight is standardised over its inputs

Every number of the layer lands in one branch: with D = U = identity it is the layer's own function. A layer that is
not padded (or padded by the layer before) takes a margin off its map: its low maps are widened by their border instead.
"""

from collections import OrderedDict

from torch import Tensor, nn

from elastic_cnn.nn.branches import ElasticSpec, PartedBranches, make_branches
from elastic_cnn.nn.split import (
    CannotDivide,
    divide_count,
    divide_groups,
    divide_inputs,
    divide_outputs,
    is_standardized_convolution,
    require_convolution,
)

# What a convolution tells of itself besides its numbers; code around it reads them to pad, to count and to connect.
PUBLIC = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


class ElasticConv2d(PartedBranches):
    """A convolution over several resolutions: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    It has the public attributes of the convolution that it was made from (`in_channels`, `kernel_size`, ...), but no
    `weight` and `bias`: these lie in its branches.
    """

    parts: list[int]  # said again: TorchScript reads a class's own annotations


def convert_convolution(conv: nn.Conv2d, spec: ElasticSpec) -> ElasticConv2d:
    """An elastic convolution with the weights of `conv`, which keeps the map's size or takes an even number off it.

    `CannotDivide` where the channels or groups are too few for the shares, where it has a stride or changes its map's
    size in another way, and for a subclass of `Conv2d` whose arithmetic is not known here.
    """
    require_convolution(conv)
    if max(conv.stride) > 1:
        raise CannotDivide("changes the resolution")
    margin = margin_of(conv)
    if any(margin) and spec.downsample.startswith("dilated"):
        raise CannotDivide("is not padded: dilated, it would take more off its map than the other branch")
    parts: list[int] = []
    if conv.groups > 1:
        groups = divide_count(conv.groups, spec.shares, "groups")
        pieces = divide_groups(conv, groups)
        parts = [piece.in_channels for piece in pieces]
    elif is_standardized_convolution(conv):
        pieces = divide_outputs(conv, divide_count(conv.out_channels, spec.shares, "output channels"))
    else:
        parts = divide_count(conv.in_channels, spec.shares, "input channels")
        pieces = divide_inputs(conv, parts)
    transforms = [nn.Sequential(OrderedDict(conv=piece)) for piece in pieces]
    branches = make_branches(transforms, spec, probe="conv", margin=margin)
    elastic = ElasticConv2d(branches, parts, concatenates=concatenates(conv))
    for name in PUBLIC:
        setattr(elastic, name, getattr(conv, name))
    return elastic


def margin_of(conv: nn.Conv2d) -> tuple[int, int]:
    """Rows and columns that a convolution of stride 1 takes off each side of its map; (0, 0) where it keeps the size.

    `CannotDivide` where it adds to the map, or takes off an odd number: then the branches have no common centre.
    """
    if conv.padding == "same" or type(conv).__name__.endswith("Same"):  # timm's, which pad by themselves
        return (0, 0)
    padding = (0, 0) if isinstance(conv.padding, str) else conv.padding
    taken = [d * (k - 1) - 2 * p for k, d, p in zip(conv.kernel_size, conv.dilation, padding, strict=True)]
    if min(taken) < 0:
        raise CannotDivide(f"pads more than its kernel takes: its map grows by {-taken[0]} x {-taken[1]}")
    if any(one % 2 for one in taken):
        raise CannotDivide(
            f"is not padded to keep its map's size, and takes an odd number off it ({taken[0]} x {taken[1]})"
        )
    return (taken[0] // 2, taken[1] // 2)


def concatenates(conv: nn.Conv2d) -> bool:
    """Whether the pieces of a divided convolution hold its outputs side by side, not terms of a sum."""
    return conv.groups > 1 or is_standardized_convolution(conv)


class ElasticLinear(nn.Module):
    """A linear layer over the channels of maps, `(N, H, W, C)` -> `(N, H, W, C')`, as a 1 x 1 convolution over several
    resolutions; any height and width."""

    def __init__(self, branches: PartedBranches, in_features: int, out_features: int):
        super().__init__()
        self.branches = branches
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.branches(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


def convert_linear(layer: nn.Linear, spec: ElasticSpec) -> ElasticLinear:
    """An elastic layer with the weights of a linear layer over the channels of maps; `CannotDivide` as above."""
    conv = as_convolution(layer)
    parts = divide_count(conv.in_channels, spec.shares, "input channels")
    transforms = [nn.Sequential(OrderedDict(conv=piece)) for piece in divide_inputs(conv, parts)]
    branches = PartedBranches(make_branches(transforms, spec, probe="conv"), parts, concatenates=False)
    return ElasticLinear(branches, layer.in_features, layer.out_features)


def as_convolution(layer: nn.Module) -> nn.Conv2d:
    """The 1 x 1 convolution with a linear layer's numbers; a convolution as it is. `CannotDivide` for other layers."""
    if isinstance(layer, nn.Conv2d):
        return layer
    if type(layer) is not nn.Linear:
        raise CannotDivide(f"{type(layer).__name__} is not a linear layer")
    conv = nn.Conv2d(
        layer.in_features,
        layer.out_features,
        1,
        bias=layer.bias is not None,
        device="meta",
        dtype=layer.weight.dtype,
    )
    conv.weight = nn.Parameter(layer.weight.detach()[:, :, None, None].clone(), layer.weight.requires_grad)
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.detach().clone(), layer.bias.requires_grad)
    return conv.train(layer.training)
