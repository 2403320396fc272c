"""Which module of `forms.py` a described block becomes, its norms folded already."""

from collections import OrderedDict
from typing import Any

from timm.layers import SEModule
from torch import nn

from elastic_cnn.fast import forms
from elastic_cnn.fast.describe import BlockDescription, BranchDescription, Unsupported
from elastic_cnn.fast.describe.description import Named
from elastic_cnn.fast.describe.judge import does_nothing, is_exactly, require, require_unblended, require_unhooked
from elastic_cnn.fast.merge import merge


def fold_block(block: BlockDescription) -> nn.Module | None:
    """The faster form of a block; None where its own is the fastest known. `Unsupported` where a form cannot serve."""
    gated = len(block.after) == 1 and isinstance(block.after[0][1], SEModule)
    if not (block.is_elastic or gated):
        return None
    if not block.is_elastic and not _takes_mean_first(block, *_divide(block.branches)):
        return None
    require_unhooked(block.module)
    require_unblended(block)
    if block.common_gate is not None or block.parts or block.stacked:
        raise Unsupported("branches of parts of the channels, or that share a gate: no faster form is known")
    require(does_nothing(block.drop_path), "its drop_path does something of its own")
    if block.inputs == "maps":
        norm = block.before[0][1] if block.before else nn.Identity()
        return forms.FoldedElasticDenseLayer(norm, forms.FoldedBranches(*_divide(block.branches)))
    return _fold_residual(block) if block.adds_input else forms.FoldedBranches(*_divide(block.branches))


def _fold_residual(block: BlockDescription) -> forms.FoldedElasticBottleneck:
    high, low = _divide(block.branches)
    shortcut = None if does_nothing(block.shortcut) else block.shortcut
    tail, act = _sequence(block.after), block.act or nn.Identity()
    form: forms.FoldedElasticBottleneck
    if len(tail) == 0:
        form = forms.FoldedElasticBottleneck(high, low, shortcut, act)
    elif _takes_mean_first(block, high, low):
        form = forms.FoldedElasticSEBottleneck(high, low, shortcut, act, block.after[0][1])
    else:
        form = forms.FoldedElasticResidual(high, low, tail, shortcut, act)
    form.given_shortcut = block.inputs == "map and shortcut"
    return form


def _takes_mean_first(block: BlockDescription, high: nn.Sequential, low: nn.ModuleList) -> bool:
    """Whether `FoldedElasticSEBottleneck` computes what the block's attention on its sum does."""
    last: Any = list(high.children())[-1]
    return (
        [name for name, module in block.after if not does_nothing(module)] == ["se"]
        and is_exactly(block.after[0][1], SEModule)
        and not block.after[0][1].add_maxpool
        and getattr(last, "kernel_size", None) == (1, 1)
        and last.stride == (1, 1)
        and last.padding == (0, 0)
        and getattr(high, "conv3", None) is last
        and all(not hasattr(branch.up, "weight") for branch in low)
    )


def _sequence(named: Named) -> nn.Sequential:
    """The modules that do something in eval mode, under their own names."""
    return nn.Sequential(OrderedDict((name, module) for name, module in named if not does_nothing(module)))


def _divide(branches: tuple[BranchDescription, ...]) -> tuple[nn.Sequential, nn.ModuleList]:
    """(the high branch's layers, low branches); branches at full resolution are merged where they can be."""
    full = [_sequence(branch.named) for branch in branches if branch.keeps_resolution]
    merged = merge(full)
    low = [
        forms.LowBranch(branch.scale, branch.down, _sequence(branch.named), branch.up)
        for branch in branches[1:]
        if not branch.keeps_resolution
    ]
    if merged is not None:
        return merged, nn.ModuleList(low)
    equal = [branch for branch in branches if branch.keeps_resolution][1:]
    beside = [forms.LowBranch(b.scale, b.down, layers, b.up) for b, layers in zip(equal, full[1:], strict=True)]
    return full[0], nn.ModuleList([*beside, *low])
