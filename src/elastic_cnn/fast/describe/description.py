"""What a block is to its faster forms: its inputs, and its layers by their role.

    before -> branches, each U(layers(D(x))), summed -> after -> + shortcut -> act

A form reads a description and nothing else of the block; `families.py` is the one place that reads blocks.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Named = tuple[tuple[str, Any], ...]  # modules under their names, in the order in which they run


class Unsupported(ValueError):
    """A block, or one of its layers, that a form does not cover; the message says why."""


@dataclass(frozen=True)
class Layer:
    """A convolution with its norm and activation, None where there is none (any more); others: what else follows it."""

    conv: Any
    norm: Any = None
    act: Any = None
    others: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class BranchDescription:
    """One term of Equation 3. down, up: D and U, `Identity` at full resolution.

    named: the modules between them as they stand; layers: the same by role. blended: whether it runs at full
    resolution, too, for now (`set_blend`).
    """

    scale: int
    down: nn.Module
    up: nn.Module
    named: Named
    layers: tuple[Layer, ...]
    blended: bool = False

    @property
    def keeps_resolution(self) -> bool:
        return isinstance(self.down, nn.Identity) and isinstance(self.up, nn.Identity)


@dataclass(frozen=True)
class BlockDescription:
    """A block by the roles of its layers; what a field names is None or empty where the block has none.

    kind: its name in reports. module: the block. inputs: what it is called with: a map; a map and, from outside, its
    shortcut; a list of maps. before: norms (with activations) of the input. branches: the first is the widest map's.
    after: what runs once on the branches' sum. adds_input: whether a shortcut joins the sum at all; shortcut: the
    layers that make it of the input. parts: input channels of each branch, empty where each sees all of them; stacked:
    whether the branches' outputs stand side by side instead of summed; common_gate: of several branches.
    """

    kind: str
    module: nn.Module
    inputs: Literal["map", "map and shortcut", "maps"]
    branches: tuple[BranchDescription, ...]
    before: Named = ()
    after: Named = ()
    adds_input: bool = False
    shortcut: nn.Module | None = None
    drop_path: nn.Module | None = None
    act: nn.Module | None = None
    parts: tuple[int, ...] = ()
    stacked: bool = False
    common_gate: nn.Module | None = None

    @property
    def high(self) -> BranchDescription:
        return self.branches[0]

    @property
    def low(self) -> tuple[BranchDescription, ...]:
        return self.branches[1:]

    @property
    def is_elastic(self) -> bool:
        return len(self.branches) > 1
