"""Weights of residual blocks in the order in which the native kernels read them (`cpu/inference/kernels.h` says why).

A matrix (outputs, inputs) becomes panels of 32 outputs, `[panel][input][32]`; a 3x3 convolution of many groups becomes
vectors of 16 groups, `[vector][tap][input][16]`. What is missing to whole panels is zero. The 1/4 of the 2x2 pooling
and the 1/16 of the doubling lie in the weights of the low-resolution branch. In bfloat16 a word holds the weights of
two inputs, `[panel][input pair][32][2]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from elastic_cnn.kernels.native import has_matrix_unit

PANEL = 32
LANES = 16


@dataclass(frozen=True)
class ConvBranch:
    """conv1 (1x1), ReLU, conv2 (3x3, padding 1, `groups`), ReLU, conv3 (1x1) of one resolution.

    w1 (P, C_in), b1 (P,), w2 (P, P / groups, 3, 3), b2 (P,), w3 (C_out, P), all float32 or float64. w3 None: it ends in
    conv2, without a ReLU, see `ResidualBlock`.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    w3: Tensor | None
    groups: int


@dataclass(frozen=True)
class SqueezeGate:
    """sigmoid(b2 + w2 relu(b1 + w1 mean)): w1 (hidden, C_out), b1 (hidden,), w2 (C_out, hidden), b2 (C_out,)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


@dataclass(frozen=True)
class ResidualBlock:
    """relu(gate(high(x) + up2(low(pool2(x))) + bias) + shortcut(x)), norms folded.

    A low branch without conv3 joins the high one before its last ReLU: conv3(relu(high(x) + up2(low(pool2(x))))). Both
    have one group then; w2 is (Q, P, 3, 3), b2 (Q,), w3 (C_out, Q).

    bias (C_out,); stride 1 or 2, of conv2 and of the projection (weight (C_out, C_in), bias (C_out,)).
    """

    high: ConvBranch
    bias: Tensor
    stride: int = 1
    low: ConvBranch | None = None
    projection: tuple[Tensor, Tensor] | None = None
    gate: SqueezeGate | None = None

    @property
    def joined(self) -> bool:
        """Whether the low branch ends in conv2."""
        return self.low is not None and self.low.w3 is None


@dataclass(frozen=True)
class Packed:
    """weights: one vector of all blocks; plan: twelve whole numbers a block, more for a tree.

    `cpu/inference/residual_plan.h` says which.
    """

    weights: Tensor
    plan: list[int]


@dataclass(frozen=True)
class Tree:
    """DLA's smallest tree: blocks (first, second) of as many output channels, and the root's 1x1 convolution.

    root: weight (C, 2 C + sum(children)), bias (C,), over [second's, first's output, children...]. children: channels.
    """

    blocks: tuple[ResidualBlock, ResidualBlock]
    root: tuple[Tensor, Tensor]
    children: tuple[int, ...] = ()
    root_shortcut: bool = False


def pack_stem(weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weights (C_out, C_in, k, k) of a stem's convolution as `stem` takes them: [panel][row][column, input][32]."""
    panels = in_panels(weight.permute(0, 2, 3, 1).flatten(1))  # (panels, k * k * C_in, 32)
    return join([words(panels.unflatten(1, (weight.shape[2], -1)), dtype)], dtype)


def words(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights (..., inputs, outputs) as the kernels multiply them, a vector of int32.

    float32: one a word, in their order. bfloat16: inputs in pairs, (..., pairs, outputs, 2), a zero beside an odd one.
    """
    if dtype == torch.float32:
        return weights.float().flatten().view(torch.int32)
    pairs = F.pad(weights, (0, 0, 0, weights.shape[-2] % 2)).unflatten(-2, (-1, 2)).transpose(-1, -2)
    return pairs.bfloat16().flatten().view(torch.int32)


def float_words(values: Tensor) -> Tensor:
    """What is float32 whatever the maps are (biases, gates), as a vector of int32."""
    return values.detach().double().float().flatten().view(torch.int32)


def use_lanes(groups: int, width: int, dtype: torch.dtype = torch.float32) -> bool:
    """Whether sixteen groups as the lanes of a vector take less time than panels of 32 outputs do: where they waste
    less, and never beside a matrix unit, to which panels that are for the most part zeros are cheap."""
    if dtype == torch.bfloat16 and (width % 2 or has_matrix_unit()):
        return False
    lanes = groups / (-(-groups // LANES) * LANES)
    panels = [_inputs_of_panel(p, groups, width) for p in range(-(-groups * width // PANEL))]
    return groups > 1 and lanes >= groups * width * width / sum(PANEL * count for _, count in panels)


def pack(blocks: Sequence[ResidualBlock], dtype: torch.dtype = torch.float32) -> Packed:
    """The blocks as `residual_blocks` takes them for maps of this dtype. Computed in float64 and rounded once."""
    plan: list[int] = []
    pieces: list[Tensor] = []
    for block in blocks:
        branches = [block.high] if block.low is None else [block.high, block.low]
        numbers = []
        for branch in branches:
            low = branch is block.low
            scales = (0.25, 1 / 16) if low else (1.0, 1.0)
            arrays, fields = _pack_branch(branch, *scales, dtype, may_use_lanes=not block.joined)
            pieces += arrays
            numbers += fields
        pieces.append(float_words(block.bias))
        if block.projection is not None:
            pieces += [words(in_panels(block.projection[0]), dtype), float_words(block.projection[1])]
        if block.gate is not None:
            ends = [branch for branch in branches if branch.w3 is not None]
            pieces += _pack_gate(block.gate, ends, block.bias, dtype, may_use_lanes=not block.joined)
        hidden = 0 if block.gate is None else len(block.gate.b1)
        sizes = [block.high.w1.shape[1], len(block.bias), block.stride]
        joined = len(block.high.b2) if block.joined else 0
        rest = [int(block.projection is not None), hidden, joined]
        plan += [*sizes, *numbers, *[0] * (6 - len(numbers)), *rest]
    return Packed(join(pieces, dtype), plan)


def pack_tree(tree: Tree, dtype: torch.dtype = torch.float32) -> Packed:
    """A tree as `dla_tree` takes it: its blocks', the root's weights over slices of whole panels, the root's bias."""
    blocks = pack(tree.blocks, dtype)
    weight, bias = tree.root
    out = len(bias)
    slices = weight.detach().double().split([out, out, *tree.children], 1)
    root = torch.cat([F.pad(part, (0, -part.shape[1] % PANEL)) for part in slices], 1)
    rest = join([words(in_panels(root), dtype), float_words(bias)], dtype)
    return Packed(torch.cat([blocks.weights, rest]), [*blocks.plan, int(tree.root_shortcut), *tree.children])


def join(pieces: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Vectors of int32 behind one another, each filled to whole panels: float32, or int32 for bfloat16."""
    joined = torch.cat([F.pad(piece, (0, -len(piece) % PANEL)) for piece in pieces])
    return joined.view(torch.float32) if dtype == torch.float32 else joined


def in_panels(matrix: Tensor) -> Tensor:
    """(outputs, inputs) -> (panels, inputs, 32)."""
    matrix = matrix.detach().double().reshape(matrix.shape[0], -1)
    matrix = F.pad(matrix, (0, 0, 0, -matrix.shape[0] % PANEL))
    return matrix.view(-1, PANEL, matrix.shape[1]).transpose(1, 2)


def _inputs_of_panel(panel: int, groups: int, width: int) -> tuple[int, int]:
    """(first, count) of the inputs that 32 outputs read, whole groups; as `inputs_of_panel` of kernels.h."""
    begin, end = panel * PANEL, min((panel + 1) * PANEL, groups * width)
    first, last = begin // width * width, -(-end // width) * width
    return (first, last - first) if groups > 1 else (0, width)


def _pack_branch(
    branch: ConvBranch, scale_in: float, scale_out: float, dtype: torch.dtype, may_use_lanes: bool
) -> tuple[list[Tensor], list[int]]:
    inner, width = branch.w2.shape[:2]
    groups = branch.groups
    lanes = may_use_lanes and use_lanes(groups, width, dtype)
    w1, b1, b2 = (part.detach().double() for part in (branch.w1, branch.b1, branch.b2))
    w3 = b1.new_zeros(1, inner) if branch.w3 is None else branch.w3.detach().double().reshape(-1, inner)
    w1, w2 = w1.reshape(len(b1), -1), branch.w2.detach().double()
    if branch.w3 is None:  # its last layer is conv2
        w2, b2 = w2 * scale_out, b2 * scale_out
    if lanes:
        missing = -groups % LANES * width
        order = torch.arange(inner + missing).view(-1, LANES, width)  # slab, lane, channel
        word = 1 if dtype == torch.float32 else 2  # channels of a group that one word holds
        read = order.unflatten(2, (-1, word)).transpose(1, 2).flatten()  # slab, pair, lane, channel of the pair
        order = order.transpose(1, 2).flatten()
        w1, b1 = F.pad(w1, (0, 0, 0, missing))[read], F.pad(b1, (0, missing))[read]
        b2, w3 = F.pad(b2, (0, missing))[order], F.pad(w3, (0, missing))[:, order]
        packed = F.pad(w2, (0, 0, 0, 0, 0, 0, 0, missing)).view(-1, LANES, width, width, 9)  # slab, lane, out, in, tap
        packed = words(packed.permute(0, 2, 4, 3, 1), dtype)
    else:
        packed = grouped_panels(w2.flatten(2), groups, dtype)
    pieces = [words(in_panels(w1 * scale_in), dtype), float_words(b1), packed, float_words(b2)]
    if branch.w3 is not None:
        pieces.append(words(in_panels(w3 * scale_out), dtype))
    return pieces, [groups, width, int(lanes)]


def grouped_panels(w2: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """A convolution's weights (P, P / groups, taps) as every panel's [tap][input][32] behind one another."""
    inner, width = w2.shape[:2]
    panels = []
    for panel in range(-(-inner // PANEL)):
        first, count = _inputs_of_panel(panel, groups, width)
        block = w2.new_zeros(w2.shape[2], count, PANEL)
        for j, output in enumerate(range(panel * PANEL, min((panel + 1) * PANEL, inner))):
            start = 0 if groups == 1 else output // width * width - first
            block[:, start : start + width, j] = w2[output].T
        panels.append(words(block, dtype))
    return torch.cat(panels)


def _pack_gate(
    gate: SqueezeGate, branches: Sequence[ConvBranch], bias: Tensor, dtype: torch.dtype, may_use_lanes: bool
) -> list[Tensor]:
    """The gate's first layer takes the means of the maps before conv3, so conv3's matrices are multiplied into it."""
    w1, w2 = gate.w1.detach().double().flatten(1), gate.w2.detach().double().flatten(1)
    wide = -len(w1) % LANES
    pieces = []
    for branch in branches:
        assert branch.w3 is not None
        v = (w1 @ branch.w3.detach().double().reshape(len(w2), -1)).T  # (P, hidden)
        groups, width = branch.groups, branch.w2.shape[1]
        if may_use_lanes and use_lanes(groups, width, dtype):
            v = F.pad(v, (0, 0, 0, -groups % LANES * width))
            v = v.view(-1, LANES, width, v.shape[1]).transpose(1, 2).flatten(0, 2)
        pieces.append(F.pad(v, (0, wide)))
    first = gate.b1.detach().double() + w1 @ bias.detach().double()
    pieces += [F.pad(first, (0, wide)), F.pad(w2.T, (0, -len(w2) % PANEL, 0, wide)), gate.b2.detach().double()]
    return [float_words(piece) for piece in pieces]
