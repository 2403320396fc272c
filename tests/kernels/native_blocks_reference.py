"""Residual blocks with random weights, and what they compute, written with torch's own layers in float64."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from elastic_cnn.kernels.packing import ConvBranch, ResidualBlock, SqueezeGate, Tree


def random(*shape: int, over: float = 1.0) -> Tensor:
    """Float64, of a size that keeps activations near one after a sum over `over` products."""
    return torch.randn(*shape, dtype=torch.float64) / over**0.5


def random_branch(in_channels: int, out_channels: int, groups: int, width: int) -> ConvBranch:
    inner = groups * width
    return ConvBranch(
        random(inner, in_channels, over=in_channels),
        random(inner, over=4),
        random(inner, width, 3, 3, over=9 * width),
        random(inner, over=4),
        random(out_channels, inner, over=inner),
        groups,
    )


def random_block(
    in_channels: int,
    out_channels: int,
    high: tuple[int, int],
    low: tuple[int, int] | None = None,
    stride: int = 1,
    projection: bool = False,
    hidden: int = 0,
    joined: int = 0,
) -> ResidualBlock:
    """high, low: (groups, channels a group); joined: channels after conv2, where the branches join there."""
    gate = None
    if hidden:
        gate = SqueezeGate(
            random(hidden, out_channels, over=out_channels),
            random(hidden),
            random(out_channels, hidden),
            random(out_channels),
        )
    low_branch = None if low is None else random_branch(in_channels, out_channels, *low)
    high_branch = random_branch(in_channels, out_channels, *high)
    if joined and low_branch is not None:
        high_branch, low_branch = (
            replace(branch, w2=random(joined, width, 3, 3, over=9 * width), b2=random(joined, over=4), w3=None)
            for branch, (_, width) in ((high_branch, high), (low_branch, low))
        )
        high_branch = replace(high_branch, w3=random(out_channels, joined, over=joined))
    return ResidualBlock(
        high_branch,
        random(out_channels, over=4),
        stride,
        low_branch,
        (random(out_channels, in_channels, over=in_channels), random(out_channels)) if projection else None,
        gate,
    )


@st.composite
def blocks(draw, in_channels=None):
    """A block of any kind: groups and widths that fill vectors and that do not, one resolution or two."""
    group = st.one_of(
        st.tuples(st.integers(1, 35), st.integers(1, 6)), st.tuples(st.integers(1, 3), st.integers(1, 40))
    )
    in_channels = in_channels or draw(st.sampled_from((1, 3, 8, 17, 32, 50, 64)))
    low = draw(st.one_of(st.none(), group))
    stride = 1 if low is not None else draw(st.sampled_from((1, 2)))
    same = stride == 1 and draw(st.booleans())
    out_channels = in_channels if same else draw(st.sampled_from((1, 5, 16, 33, 64, 70)))
    hidden = draw(st.sampled_from((0, 0, 1, 7, 16, 20)))
    seed = draw(st.integers(0, 1000))
    torch.manual_seed(seed)
    high = draw(group)
    joined = draw(st.sampled_from((0, 1, 20, 33, 64))) if low is not None else 0
    if joined:
        high, low = (1, high[0] * high[1]), (1, low[0] * low[1])
    return random_block(in_channels, out_channels, high, low, stride, not same, hidden, joined)


def pool2(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)


def up2(low: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]


def run_branch(branch: ConvBranch, x: Tensor, stride: int) -> Tensor:
    y = F.relu(conv2(branch, x, stride))
    return F.conv2d(y, branch.w3[..., None, None])


def conv2(branch: ConvBranch, x: Tensor, stride: int) -> Tensor:
    y = F.relu(F.conv2d(x, branch.w1[..., None, None], branch.b1))
    return F.conv2d(y, branch.w2, branch.b2, stride, 1, 1, branch.groups)


def run_block(block: ResidualBlock, x: Tensor, bottom: Tensor | None = None) -> Tensor:
    """bottom: what the shortcut is made of where it is not the input, of the output's height and width."""
    if block.joined:
        y = conv2(block.high, x, 1) + up2(conv2(block.low, pool2(x), 1), *x.shape[2:])
        y = F.conv2d(F.relu(y), block.high.w3[..., None, None])
    else:
        y = run_branch(block.high, x, block.stride)
    y = y + block.bias[:, None, None]
    if block.low is not None and not block.joined:
        y = y + up2(run_branch(block.low, pool2(x), 1), *x.shape[2:])
    if block.gate is not None:
        hidden = F.relu(F.linear(y.mean((2, 3)), block.gate.w1, block.gate.b1))
        y = y * torch.sigmoid(F.linear(hidden, block.gate.w2, block.gate.b2))[..., None, None]
    given = (x, block.stride) if bottom is None else (bottom, 1)
    shortcut = given[0]
    if block.projection is not None:
        weight, bias = block.projection
        shortcut = F.conv2d(given[0], weight[..., None, None], bias, given[1])
    return F.relu(y + shortcut)


def run_tree(tree: Tree, x: Tensor, bottom: Tensor, children: list[Tensor]) -> Tensor:
    """DLA's tree of two blocks and a root: x (N, C_in, H, W), bottom (N, C_in, H', W'), children (N, C_i, H', W')."""
    x1 = run_block(tree.blocks[0], x, bottom)
    x2 = run_block(tree.blocks[1], x1)
    weight, bias = tree.root
    y = F.conv2d(torch.cat([x2, x1, *children], 1), weight[..., None, None], bias)
    return F.relu(y + x2 if tree.root_shortcut else y)
