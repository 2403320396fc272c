"""What the optimized forms of all families share: low branches, the merger of equal ones, and when a form applies."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.layers import DropBlock2d, DropPath
from torch import Tensor, nn

from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.fold import is_norm
from elastic_cnn.nn import Branch, ElasticBranches
from elastic_cnn.nn.resample import crop

NOTHING_IN_EVAL = (nn.Identity, nn.Dropout, nn.Dropout2d, DropBlock2d, DropPath)


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


def does_nothing(module: nn.Module | None) -> bool:
    """Whether `module` returns its input in eval mode."""
    return module is None or isinstance(module, NOTHING_IN_EVAL)


def clean(layers: nn.Module) -> nn.Sequential:
    """The children of `layers` that do something in eval mode, under their own names."""
    return nn.Sequential(OrderedDict((name, part) for name, part in layers.named_children() if not does_nothing(part)))


def obstacle(block: nn.Module) -> str:
    """Why a block must keep its plain form; empty where it need not."""
    if any(has_hooks(module) for module in block.modules()):
        return "hooks look at it"
    branches = [module for module in block.modules() if isinstance(module, Branch)]
    if any(branch.blend < 1 and branch.resamples for branch in branches):
        return "blend below 1: its low branches still run at full resolution too"
    return ""


def divide(branches: ElasticBranches) -> tuple[nn.Sequential, nn.ModuleList]:
    """(the high branch's transform, low branches), cleaned; those at full resolution are merged where they can be."""
    members: list[Any] = [branches.high, *branches.low]
    full = [clean(member.transform) for member in members if _keeps_resolution(member)]
    merged = merge(full)
    low = [LowBranch(m.scale, m.down, clean(m.transform), m.up) for m in members[1:] if not _keeps_resolution(m)]
    if merged is not None:
        return merged, nn.ModuleList(low)
    equal = [
        LowBranch(m.scale, m.down, part, m.up)
        for m, part in zip([m for m in members if _keeps_resolution(m)][1:], full[1:], strict=True)
    ]
    return full[0], nn.ModuleList([*equal, *low])


def _keeps_resolution(branch: Any) -> bool:
    return isinstance(branch.down, nn.Identity) and isinstance(branch.up, nn.Identity)


def merge(transforms: Sequence[nn.Sequential]) -> nn.Sequential | None:
    """One transform that computes the sum of `transforms` of the same input; None where none is known.

    The first convolution's outputs are put side by side, inner convolutions become more groups of one, and the last
    one takes all inputs, which sums.
    """
    if len(transforms) == 1:
        return transforms[0]
    merged: OrderedDict[str, nn.Module] = OrderedDict()
    names = [name for name, _ in transforms[0].named_children()]
    if any([name for name, _ in t.named_children()] != names for t in transforms):
        return None
    convolutions = [name for name, part in transforms[0].named_children() if isinstance(part, nn.Conv2d)]
    for name in names:
        parts: list[Any] = [t.get_submodule(name) for t in transforms]
        if any(is_norm(part) for part in parts) or len({repr(type(part)) for part in parts}) > 1:
            return None
        if isinstance(parts[0], nn.Conv2d):
            whole = _merge_convolutions(parts, name == convolutions[0], name == convolutions[-1])
            if whole is None:
                return None
            merged[name] = whole
        elif list(parts[0].parameters()):
            return None
        else:
            merged[name] = parts[0]
    return nn.Sequential(merged) if len(convolutions) > 1 else None


def _merge_convolutions(convs: Sequence[Any], first: bool, last: bool) -> nn.Conv2d | None:
    kinds = {(type(c), c.kernel_size, c.stride, c.padding, c.dilation, c.padding_mode) for c in convs}
    if len(kinds) > 1 or convs[0].padding_mode != "zeros":
        return None
    merged = copy.deepcopy(convs[0])
    biases = [c.bias for c in convs]
    if first or not last:
        sizes = {(c.in_channels // c.groups, c.out_channels // c.groups) for c in convs}
        if (first and any(c.groups > 1 for c in convs)) or (not first and len(sizes) > 1):
            return None
        merged.out_channels = sum(c.out_channels for c in convs)
        if not first:
            merged.in_channels, merged.groups = sum(c.in_channels for c in convs), sum(c.groups for c in convs)
        weight = torch.cat([c.weight.detach() for c in convs])
        bias = None
        if any(b is not None for b in biases):
            bias = torch.cat([weight.new_zeros(c.out_channels) if c.bias is None else c.bias.detach() for c in convs])
    else:
        if any(c.groups > 1 for c in convs):
            return None
        merged.in_channels = sum(c.in_channels for c in convs)
        weight = torch.cat([c.weight.detach() for c in convs], 1)
        present = [b.detach() for b in biases if b is not None]
        bias = torch.stack(present).sum(0) if present else None
    merged.weight = nn.Parameter(weight, requires_grad=False)
    merged.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return merged


def walk_top(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Modules of these kinds in network order, none inside another."""
    outer: list[str] = []
    for name, module in list(network.named_modules()):
        if isinstance(module, kinds) and not any(not above or name.startswith(f"{above}.") for above in outer):
            outer.append(name)
            yield name, module
