"""The one place that reads blocks: a case for each family. A new family is a case here and a row in `tests/fast`."""

from collections.abc import Callable, Iterable
from typing import Any

import timm.models.dla as timm_dla
import timm.models.resnet as timm_resnet
import torchvision.models.resnet as torchvision_resnet
from timm.models.densenet import DenseLayer, DenseTransition
from torch import nn

from elastic_cnn.fast import forms
from elastic_cnn.fast.describe.description import BlockDescription, BranchDescription, Layer, Named, Unsupported
from elastic_cnn.fast.describe.judge import WITH_ACTIVATION, is_absent, is_activation, is_any_norm, is_exactly
from elastic_cnn.nn import Branch, ElasticBranches
from elastic_cnn.nn.branches import PartedBranches
from elastic_cnn.nn.convolution import ElasticConv2d
from elastic_cnn.nn.gated import GatedBranches
from elastic_cnn.surgery.dense_layer import ElasticDenseLayer
from elastic_cnn.surgery.dla_block import ElasticDlaBlock
from elastic_cnn.surgery.residual import ElasticResidual


def describe(module: nn.Module) -> BlockDescription:
    """What `module` is to its faster forms. `Unsupported` says why none knows it."""
    kind = family_of(module)
    if kind is None:
        if "forward" in vars(module):
            raise Unsupported("its forward was replaced")
        known = next((one for one in FAMILIES if isinstance(module, one)), None)
        if known is None:
            raise Unsupported(f"{type(module).__name__} is not a block that a form knows")
        raise Unsupported(
            f"{type(module).__name__} may compute something else than the {known.__name__} that it extends"
        )
    return FAMILIES[kind](module)


def family_of(module: nn.Module) -> type[nn.Module] | None:
    """The class by which `module` is known: its own, or for a block in a faster form of itself the one that it had."""
    kind = getattr(type(module), "plain_class", type(module))
    return kind if kind in FAMILIES and "forward" not in vars(module) else None


def is_block(module: nn.Module) -> bool:
    """Whether `module` is of a family, or of a class that extends one (which `describe` then refuses)."""
    return isinstance(module, tuple(FAMILIES))


def read_layers(named: Iterable[tuple[str, Any]]) -> tuple[Layer, ...]:
    """Convolutions with what follows each. `Unsupported` where something precedes the first."""
    layers: list[Layer] = []
    for _, module in named:
        if isinstance(module, (nn.Conv2d, ElasticBranches)):
            layers.append(Layer(module))
        elif is_absent(module):
            continue
        elif not layers:
            raise Unsupported(f"its first layer is {type(module).__name__}, not a convolution")
        else:
            layers[-1] = _with(layers[-1], module)
    return tuple(layers)


def _with(layer: Layer, module: Any) -> Layer:
    """`layer` followed by `module` in the role that fits."""
    if is_any_norm(module) and layer.norm is layer.act is None and not layer.others:
        if not is_exactly(module, *WITH_ACTIVATION):
            return Layer(layer.conv, module)
        others = () if is_absent(module.drop) else (module.drop,)
        return Layer(layer.conv, module, None if is_absent(module.act) else module.act, others)
    if is_activation(module) and layer.act is None:
        return Layer(layer.conv, layer.norm, module, layer.others)
    return Layer(layer.conv, layer.norm, layer.act, (*layer.others, module))


def present(named: Iterable[tuple[str, Any]]) -> Named:
    """Without those that are not there, or fold into nothing."""
    return tuple((name, module) for name, module in named if not is_absent(module))


def single(named: Iterable[tuple[str, Any]]) -> tuple[BranchDescription, ...]:
    """One branch at full resolution, of these layers one after the other."""
    found = present(named)
    return (BranchDescription(1, nn.Identity(), nn.Identity(), found, read_layers(found)),)


def _named(block: Any, *names: str) -> Named:
    """The block's layers of these names. torchvision and DLA have one `relu` for all activations."""
    acts = {f"act{i}": getattr(block, "relu", None) for i in (1, 2, 3)}
    return present((name, getattr(block, name, acts.get(name))) for name in names)


def _children(module: nn.Module) -> Named:
    return present(module._modules.items())  # named_children() names a module only once


def _of_branch(branch: Branch) -> BranchDescription:
    named = _children(branch.transform)
    blended = branch.resamples and branch.blend < 1
    return BranchDescription(branch.scale, branch.down, branch.up, named, read_layers(named), blended)


def _of_branches(branches: Any) -> tuple[BranchDescription, ...]:
    return tuple(_of_branch(branch) for branch in (branches.high, *branches.low))


def _plain_residual(block: Any, path: tuple[str, ...], after: tuple[str, ...], act: str) -> BlockDescription:
    given = isinstance(block, (timm_dla.DlaBottleneck, timm_dla.DlaBasic))
    return BlockDescription(
        kind="squeeze-and-excitation block" if getattr(block, "se", None) is not None else "residual block",
        module=block,
        inputs="map and shortcut" if given else "map",
        branches=single(_named(block, *path)),
        after=_named(block, *after),
        adds_input=True,
        shortcut=getattr(block, "downsample", None),
        drop_path=getattr(block, "drop_path", None),
        act=dict(_named(block, act)).get(act),
    )


def _bottleneck(block: Any) -> BlockDescription:
    path = ("conv1", "bn1", "act1", "conv2", "bn2", "drop_block", "act2", "aa", "conv3")
    return _plain_residual(block, path, ("bn3", "se"), "act3")


def _basic_block(block: Any) -> BlockDescription:
    path = ("conv1", "bn1", "drop_block", "act1", "aa", "conv2")
    return _plain_residual(block, path, ("bn2", "se"), "act2")


def _elastic_residual(block: Any) -> BlockDescription:
    return BlockDescription(
        kind="residual block",
        module=block,
        inputs="map and shortcut" if isinstance(block, ElasticDlaBlock) else "map",
        branches=_of_branches(block.branches),
        after=_children(block.tail),
        adds_input=True,
        shortcut=block.shortcut,
        drop_path=block.drop_path,
        act=block.act,
        common_gate=getattr(block.branches, "gate", None),
    )


def _folded_branches(block: Any) -> tuple[BranchDescription, ...]:
    low = (
        BranchDescription(one.scale, one.down, one.up, _children(one.transform), read_layers(_children(one.transform)))
        for one in block.low
    )
    return (*single(_children(block.high)), *low)


def _folded_residual(block: Any) -> BlockDescription:
    after: Named = ()
    if isinstance(block, forms.FoldedElasticResidual):
        after = _children(block.tail)
    elif isinstance(block, forms.FoldedElasticSEBottleneck):
        after = (("se", block.se),)
    return BlockDescription(
        kind="residual block",
        module=block,
        inputs="map and shortcut" if block.given_shortcut else "map",
        branches=_folded_branches(block),
        after=after,
        adds_input=True,
        shortcut=block.shortcut,
        act=block.act,
    )


def _dense_layer(layer: Any) -> BlockDescription:
    if type(layer) is ElasticDenseLayer:
        branches = _of_branches(layer.branches)
    elif type(layer) is forms.FoldedElasticDenseLayer:
        branches = _folded_branches(layer.branches)
    else:
        branches = single(_named(layer, "conv1", "norm2", "conv2"))
    return BlockDescription("dense layer", layer, "maps", branches, before=_named(layer, "norm1"))


def _transition(module: Any) -> BlockDescription:
    branches = single(_named(module, "conv"))
    before, after = _named(module, "norm"), _named(module, "pool")
    return BlockDescription("transition", module, "map", branches, before=before, after=after)


def _root(root: Any) -> BlockDescription:
    """DLA's root: a convolution of the concatenated maps; its shortcut is the first of them."""
    branches = single(_named(root, "conv"))
    after = _named(root, "bn")
    return BlockDescription("root", root, "maps", branches, after=after, adds_input=root.shortcut, act=root.relu)


def _branches(branches: Any) -> BlockDescription:
    return BlockDescription(
        kind="branches",
        module=branches,
        inputs="map",
        branches=_of_branches(branches),
        parts=tuple(getattr(branches, "parts", ())),
        stacked=bool(getattr(branches, "concatenates", False)),
        common_gate=getattr(branches, "gate", None),
    )


FAMILIES: dict[type[nn.Module], Callable[[Any], BlockDescription]] = {
    timm_resnet.Bottleneck: _bottleneck,
    torchvision_resnet.Bottleneck: _bottleneck,
    timm_dla.DlaBottleneck: _bottleneck,
    timm_resnet.BasicBlock: _basic_block,
    torchvision_resnet.BasicBlock: _basic_block,
    timm_dla.DlaBasic: _basic_block,
    ElasticResidual: _elastic_residual,
    ElasticDlaBlock: _elastic_residual,
    forms.FoldedElasticBottleneck: _folded_residual,
    forms.FoldedElasticResidual: _folded_residual,
    forms.FoldedElasticSEBottleneck: _folded_residual,
    timm_dla.DlaRoot: _root,
    DenseLayer: _dense_layer,
    ElasticDenseLayer: _dense_layer,
    forms.FoldedElasticDenseLayer: _dense_layer,
    DenseTransition: _transition,
    ElasticBranches: _branches,
    PartedBranches: _branches,
    ElasticConv2d: _branches,
    GatedBranches: _branches,
}
