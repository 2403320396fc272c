"""The modules of the optimized form in PyTorch. What becomes one of them `torch_form.py` decides.

Residual blocks add the shortcut to the enlarged map first: `relu(conv3(a) + (U(low) + shortcut))`. The bracket is one
pass over memory, and a compiler hands it to the last convolution, which adds it and takes the ReLU as it writes.
"""

from typing import Any

import torch
from timm.layers import SEModule
from timm.models.densenet import DenseLayer
from torch import Tensor, nn

from elastic_cnn.nn.resample import crop


class LowBranch(nn.Module):
    """One low-resolution term of Equation 3, cropped: `(N, C, H, W)` -> `(N, C', H, W)`.

    down, up: D and U. transform: convolutions and activations between them, under the names of the high branch's.
    """

    def __init__(self, scale: int, down: nn.Module, transform: nn.Sequential, up: nn.Module):
        super().__init__()
        self.scale = scale
        self.down = down
        self.transform = transform
        self.up = up

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        return self.enlarge(self.transform(self.down(x)), height, width)

    def enlarge(self, y: Tensor, height: int, width: int) -> Tensor:
        """U of `y` (N, C', H / scale, W / scale), cropped to `height` and `width`."""
        return y if isinstance(self.up, nn.Identity) else crop(self.up(y), height, width)


def add_low(low: nn.ModuleList, x: Tensor, start: Tensor | None, height: int, width: int) -> Tensor | None:
    """`start` plus every low branch of `x`: what the last convolution of the high branch is then added to."""
    for branch in low:
        y = branch(x, height, width)
        start = y if start is None else y + start
    return start


class FoldedBranches(nn.Module):
    """The sum of Equation 3, the high branch last: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width."""

    def __init__(self, high: nn.Sequential, low: nn.ModuleList):
        super().__init__()
        self.high = high
        self.low = low

    def forward(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """The sum, and `start` (N, C_out, H, W) with it where given."""
        y = self.high(x)
        total = add_low(self.low, x, start, y.shape[-2], y.shape[-1])
        return y if total is None else y + total


class FoldedElasticDenseLayer(DenseLayer):
    """DenseNet's layer: norm1 (it reads all features, so it stays) and branches of conv1, act, conv2."""

    def __init__(self, norm1: nn.Module, branches: FoldedBranches):
        nn.Module.__init__(self)
        self.norm1 = norm1
        self.branches = branches

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:  # lists of (N, C_i, H, W) -> (N, growth_rate, H, W)
        return self.branches(self.norm1(torch.cat([x] if isinstance(x, Tensor) else x, 1)))


class FoldedElasticBottleneck(nn.Module):
    """An elastic bottleneck with its norms folded: `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    high: conv1 (1x1), act1, conv2 (3x3, grouped), act2, [aa], conv3 (1x1, with the bias of the whole block).
    low: `LowBranch`es, each .down, .transform (conv1, act1, conv2, act2, [aa], conv3 without bias), .up.
    shortcut: a projection of `x`, or None for `x` itself; act: the last activation. given_shortcut: whether a caller
    (DLA's trees) may hand over `shortcut` and `children`; a shortcut given so is taken as it is.
    """

    given_shortcut: bool = False

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
        for name, layer in self.high._modules.items():  # named_children() would name a shared activation only once
            if name != "conv3":
                x = layer(x)
        return x


class JoinedElasticBottleneck(FoldedElasticBottleneck):
    """A bottleneck whose low branches are enlarged before their last convolution, which then is one for all branches:

        act(conv3(cat(a, U(b), ...)) + shortcut)

    U acts on each channel alone and conv3 on each position alone, so that they commute. More multiply-adds (each low
    conv3 runs at full resolution), fewer wide maps: for processors with a matrix unit (AMX), whose products are cheap.
    Takes `high` and `low` of a `FoldedElasticBottleneck` apart: their last layers become `conv3`.
    """

    def __init__(self, block: FoldedElasticBottleneck):
        last = _last_layers(block)
        super().__init__(block.high[:-1], block.low, block.shortcut, block.act)
        self.given_shortcut = block.given_shortcut
        for branch in self.low:
            branch.transform = branch.transform[:-1]  # type: ignore[index]
        first = last[0]
        self.conv3 = nn.Conv2d(
            sum(conv.in_channels for conv in last), first.out_channels, 1, device=first.weight.device,
            dtype=first.weight.dtype,
        )  # fmt: skip
        with torch.no_grad():
            self.conv3.weight.copy_(torch.cat([conv.weight for conv in last], 1))
            self.conv3.bias.copy_(sum(conv.bias for conv in last if conv.bias is not None))  # type: ignore

    @staticmethod
    def takes(block: nn.Module) -> bool:
        """Whether a module is a block whose branches can be joined so."""
        if type(block) is not FoldedElasticBottleneck or not block.low:
            return False
        last = _last_layers(block)
        return all(
            type(conv) is nn.Conv2d
            and conv.kernel_size == (1, 1)
            and conv.stride == (1, 1)
            and conv.padding == (0, 0)
            and conv.groups == 1
            for conv in last
        ) and any(conv.bias is not None for conv in last)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        start = self._start(x, shortcut)
        height, width = start.shape[-2:]
        maps = [self.high(x), *(branch(x, height, width) for branch in self.low)]  # (N, C_b, H, W) each
        return self.act(self.conv3(torch.cat(maps, 1)) + start)


def _last_layers(block: FoldedElasticBottleneck) -> list[Any]:
    """Of the high branch and of each low one."""
    low: Any = block.low
    return [list(branch.children())[-1] for branch in (block.high, *(branch.transform for branch in low))]


def join_last_convolutions(network: nn.Module) -> int:
    """Let `JoinedElasticBottleneck` take the place of every block that it takes, in place; returns how many."""
    found = [(name, module) for name, module in network.named_modules() if JoinedElasticBottleneck.takes(module)]
    for name, block in found:
        parent, _, child = name.rpartition(".")
        assert isinstance(block, FoldedElasticBottleneck)
        setattr(network.get_submodule(parent), child, JoinedElasticBottleneck(block))
    return len(found)


def squeeze_to_gate(se: Any, squeezed: Tensor) -> Tensor:
    """The gate (N, C, 1, 1) of timm's `SEModule` from the map's means (N, C, 1, 1)."""
    return se.gate(se.fc2(se.act(se.bn(se.fc1(squeezed)))))
