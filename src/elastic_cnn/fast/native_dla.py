"""DLA's trees as native calls: two blocks and the root that joins them, elastic or not."""

from collections.abc import Iterator
from typing import Any

import torch
from timm.models.dla import DlaTree
from torch import Tensor, nn

from elastic_cnn.fast.describe import Unsupported, describe
from elastic_cnn.fast.describe.judge import (
    bias_of,
    is_exactly,
    require,
    require_convolution,
    require_relu,
    require_single_layers,
    require_tensors,
    require_unhooked,
)
from elastic_cnn.fast.native_module import NativeModule
from elastic_cnn.fast.native_residual import projection_of, residual_block
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import Tree, pack_tree


class NativeDlaTree(NativeModule):
    """A tree of two blocks as one native call.

    Called as timm's `DlaTree` is; a shortcut that is handed over is not used there either.
    """

    operator = "dla_tree"

    def __init__(self, tree: Any, described: Tree, dtype: torch.dtype):
        packed = pack_tree(described, dtype)
        super().__init__(ops.in_huge_pages([packed.weights]), packed.plan)
        self.downsample = tree.downsample
        self.level_root = tree.level_root

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        dtype = ops.map_dtype(self.weights)
        ops.require_no_gradient(x)
        x = x.to(dtype)
        bottom = self.downsample(x)  # (N, C_in, H', W')
        given = [*(child.to(dtype) for child in children or ()), *([bottom] if self.level_root else [])]
        return ops.operator(self.operator, self.weights)(x, bottom, given, self.weights, self.plan)


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


def dla_trees(root: Root, report: FormReport, dtype: torch.dtype) -> list[Change]:
    """Every tree of two blocks as one call."""
    changes = []
    for name, tree, children in list(smallest_trees(root.network)):
        try:
            native = NativeDlaTree(tree, _describe_tree(tree, children), dtype)
        except Unsupported as reason:
            report.left[name] = f"not native: {reason}"
            continue
        changes.append(Change(name, "native tree"))
        changes[-1].replace(root, tree, native)
    return changes


def _describe_tree(tree: Any, children: list[int]) -> Tree:
    """A tree of two blocks, norms folded. `Unsupported` says what the kernels do not compute."""
    require(is_exactly(tree, DlaTree), f"{type(tree).__name__} in place of a tree")
    require_unhooked(tree)
    first = residual_block(describe(tree.tree1), given_projection=projection_of(tree.project, 1))
    second, root = residual_block(describe(tree.tree2)), describe(tree.root)
    require(second.stride == 1 and second.projection is None, "its second block changes the size")
    require_tensors(root.module, torch.float32, "cpu")
    require_single_layers(root.high, 1)
    conv = root.high.layers[0].conv
    require_convolution(conv, 1)
    require(root.high.layers[0].norm is None and not root.after, "its root has a norm")
    require_relu(root.act)
    return Tree((first, second), (conv.weight.flatten(1), bias_of(conv)), tuple(children), root.adds_input)
