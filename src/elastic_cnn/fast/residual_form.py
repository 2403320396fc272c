"""Residual blocks and DLA's blocks: the shortcut is added to the enlarged map first.

    relu(conv3(a) + (U(low) + shortcut))

The bracket is one pass over memory, and a compiler hands it to the last convolution, which adds it and takes the ReLU
as it writes: nothing is read or written again after it.
"""

from collections import OrderedDict
from typing import Any

from timm.layers import SEModule
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import add_low, clean, divide, does_nothing
from elastic_cnn.surgery.residual import ElasticResidual


class FoldedElasticBottleneck(nn.Module):
    """An elastic bottleneck with its norms folded: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    high: conv1 (1x1), act1, conv2 (3x3, grouped), act2, [aa], conv3 (1x1, with the bias of the whole block).
    low: `LowBranch`es, each .down, .transform (conv1, act1, conv2, act2, [aa], conv3 without bias), .up.
    shortcut: a projection of `x`, or None for `x` itself; act: the last activation.

    `shortcut` and `children` of `forward` are what DLA's trees hand over; a shortcut given there is taken as it is.
    """

    def __init__(self, high: nn.Sequential, low: nn.ModuleList, shortcut: nn.Module | None, act: nn.Module):
        super().__init__()
        self.high = high
        self.low = low
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        start = self._start(x, shortcut)
        total = add_low(self.low, x, start, start.shape[-2], start.shape[-1])
        return self.act(self.high(x) + total)

    def _start(self, x: Tensor, shortcut: Tensor | None) -> Tensor:  # (N, C_out, H, W)
        if shortcut is not None:
            return shortcut
        return x if self.shortcut is None else self.shortcut(x)


class FoldedElasticResidual(FoldedElasticBottleneck):
    """A block whose branches end before its last layers: `act(tail(sum of the branches) + shortcut)`.

    tail: what runs once on the sum (ResNet's act2 and conv3; an attention layer that needs the whole map); else as
    `FoldedElasticBottleneck`.
    """

    def __init__(self, high: nn.Sequential, low: nn.ModuleList, tail: nn.Sequential, shortcut: Any, act: nn.Module):
        super().__init__(high, low, shortcut, act)
        self.tail = tail

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        start = self._start(x, shortcut)
        y = self.high(x)  # (N, C', H, W)
        low = add_low(self.low, x, None, y.shape[-2], y.shape[-1])
        return self.act(self.tail(y if low is None else y + low) + start)


class FoldedElasticSEBottleneck(FoldedElasticBottleneck):
    """A bottleneck with squeeze-and-excitation, whose squeeze is taken before the wide maps exist.

    A mean over positions passes through a 1x1 convolution, and through an enlargement that is not cropped; so the
    gate is known before conv3's output is written, and one pass then does the rest:

        act(gate * conv3(a) + (gate * U(low) + shortcut))
    """

    def __init__(self, high: nn.Sequential, low: nn.ModuleList, shortcut: Any, act: nn.Module, se: SEModule):
        super().__init__(high, low, shortcut, act)
        self.se = se

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        start = self._start(x, shortcut)
        height, width = start.shape[-2:]
        inner = self._inner(x)  # (N, C_mid, H, W)
        squeezed = self.high.conv3(inner.mean((2, 3), keepdim=True))  # type: ignore[operator]
        enlarged = []
        for branch in self.low:
            y: Tensor = branch.transform(branch.down(x))  # type: ignore[operator]
            whole = y.shape[-2] * branch.scale == height and y.shape[-1] * branch.scale == width  # type: ignore[operator]
            up = branch.enlarge(y, height, width)  # type: ignore[operator]
            squeezed = squeezed + (y if whole else up).mean((2, 3), keepdim=True)
            enlarged.append(up)
        gate = squeeze_to_gate(self.se, squeezed)  # (N, C_out, 1, 1)
        for up in enlarged:
            start = start + gate * up
        return self.act(gate * self.high.conv3(inner) + start)  # type: ignore[operator]

    def _inner(self, x: Tensor) -> Tensor:
        for name, layer in self.high.named_children():
            if name != "conv3":
                x = layer(x)
        return x


def squeeze_to_gate(se: Any, squeezed: Tensor) -> Tensor:
    """The gate (N, C, 1, 1) of timm's `SEModule` from the map's means (N, C, 1, 1)."""
    return se.gate(se.fc2(se.act(se.bn(se.fc1(squeezed)))))


def takes_mean_first(se: nn.Module, high: nn.Sequential, low: nn.ModuleList) -> bool:
    """Whether `FoldedElasticSEBottleneck` computes what `se` on the block's sum does."""
    last: Any = list(high.children())[-1]
    return (
        type(se) is SEModule
        and not se.add_maxpool
        and last.kernel_size == (1, 1)
        and last.stride == (1, 1)
        and getattr(high, "conv3", None) is last
        and all(not hasattr(branch.up, "weight") for branch in low)
    )


def fold_residual(block: ElasticResidual) -> FoldedElasticBottleneck:
    """The optimized form of an elastic residual or DLA block whose norms are folded already."""
    high, low = divide(block.branches)
    shortcut = None if does_nothing(block.shortcut) else block.shortcut
    tail = clean(block.tail)
    if len(tail) == 0:
        return FoldedElasticBottleneck(high, low, shortcut, block.act)
    if [name for name, _ in tail.named_children()] == ["se"] and takes_mean_first(tail.se, high, low):  # type: ignore[arg-type]
        return FoldedElasticSEBottleneck(high, low, shortcut, block.act, tail.se)  # type: ignore[arg-type]
    return FoldedElasticResidual(high, low, tail, shortcut, block.act)


def fold_plain_bottleneck(block: Any) -> FoldedElasticSEBottleneck | None:
    """timm's bottleneck with squeeze-and-excitation as `FoldedElasticSEBottleneck` without low branches.

    None where it has no such layer, a norm is left, or a subclass may compute something else.
    """
    if type(block) is not Bottleneck:
        return None
    high = clean(block)
    names = [name for name in ("conv1", "act1", "conv2", "act2", "aa", "conv3") if hasattr(high, name)]
    others = {"se", "downsample", "act3"}
    if not hasattr(high, "se") or {name for name, _ in high.named_children()} - {*names, *others}:
        return None
    layers = nn.Sequential(OrderedDict((name, high.get_submodule(name)) for name in names))
    low = nn.ModuleList()
    if not takes_mean_first(block.se, layers, low):
        return None
    return FoldedElasticSEBottleneck(layers, low, block.downsample, block.act3, block.se)
