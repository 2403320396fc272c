"""DLA's trees as native calls: two blocks and the root that joins them, elastic or not."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.models.dla import DlaTree
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import does_nothing
from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.native_blocks import describe, projection_of, require, require_relu
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import Tree, pack_tree


class NativeDlaTree(nn.Module):
    """A tree of two blocks as one native call: `(N, C_in, H, W)` -> `(N, C_out, H', W')`, float32 on the CPU.

    Called as timm's `DlaTree` is; a shortcut that is handed over is not used there either.
    """

    def __init__(self, tree: Any, described: Tree):
        super().__init__()
        packed = pack_tree(described)
        self.plan = packed.plan
        self.downsample = tree.downsample
        self.level_root = tree.level_root
        self.register_buffer("weights", ops.in_huge_pages([packed.weights]), persistent=False)
        self.weights: Tensor

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        bottom = self.downsample(x)  # (N, C_in, H', W')
        given = [*(children or ()), *([bottom] if self.level_root else [])]
        return torch.ops.elastic_cnn.dla_tree(x, bottom, given, self.weights, self.plan)


def smallest_trees(network: nn.Module) -> Iterator[tuple[str, Any, list[int]]]:
    """(name, tree, its children's channels) of every tree of two blocks, as timm's trees hand the children on."""
    tops: list[str] = []
    for name, module in list(network.named_modules()):
        if isinstance(module, DlaTree) and not any(name.startswith(f"{top}.") for top in tops):
            tops.append(name)
            yield from _descend(name, module, [])


def _descend(name: str, tree: Any, children: list[int]) -> Iterator[tuple[str, Any, list[int]]]:
    if tree.level_root:
        first = next(part for part in tree.tree1.modules() if isinstance(part, nn.Conv2d))
        children = [*children, first.in_channels]
    if tree.root is not None:
        yield name, tree, children
        return
    last = tree.tree1
    while last.root is None:
        last = last.tree2
    yield from _descend(f"{name}.tree1", tree.tree1, [])
    yield from _descend(f"{name}.tree2", tree.tree2, [*children, last.root.conv.out_channels])


def to_native_tree(tree: Any, children: list[int]) -> NativeDlaTree:
    """The native form of a tree of two blocks, norms folded. `CannotBeNative` says what the kernels do not compute."""
    require(not any(has_hooks(module) for module in tree.modules()), "hooks look at it")
    projection = None if does_nothing(tree.project) else projection_of(tree.project, 1)
    first = describe(tree.tree1, given_projection=projection)
    second, root, conv = describe(tree.tree2), tree.root, tree.root.conv
    require(second.stride == 1 and second.projection is None, "its second block changes the size")
    plain = type(conv) is nn.Conv2d and conv.kernel_size == (1, 1) and conv.stride == (1, 1)
    require(plain and conv.groups == 1 and does_nothing(root.bn), "its root is not a 1x1 convolution")
    require_relu(root.relu)
    weight, bias = conv.weight.flatten(1), conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return NativeDlaTree(tree, Tree((first, second), (weight, bias), tuple(children), root.shortcut))
