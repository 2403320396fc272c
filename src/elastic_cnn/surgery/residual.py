"""Residual blocks: timm's and torchvision's `Bottleneck` and `BasicBlock`, with or without squeeze-and-excitation.

A bottleneck with a grouped 3x3 convolution (ResNeXt) is divided through all its layers, as in the paper:

    relu(shortcut(x) + se(bn3(sum_i U(conv3_i(relu(bn2_i(conv2_i(relu(bn1_i(conv1_i(D(x))))))))))))

Where the inner convolution mixes all its channels (ResNet), dividing it so would drop weights. There the branches end
at that convolution, whose weight is divided along its inputs, and what follows runs once on their sum:

    bottleneck   relu(shortcut(x) + bn3(conv3(relu(bn2(sum_i U(conv2_i(relu(bn1_i(conv1_i(D(x))))))))))))
    basic block  relu(shortcut(x) + bn2(sum_i U(conv2_i(relu(bn1_i(conv1_i(D(x))))))))

Every number of the block lands in exactly one place, so with D = U = identity the function is the block's own.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import timm.models.resnet as timm_resnet
import torchvision.models.resnet as torchvision_resnet
from torch import Tensor, nn

from elastic_cnn.nn.branches import ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.split import divide_count, divide_groups, divide_inputs, divide_norm, divide_outputs
from elastic_cnn.surgery.sections import Section

BOTTLENECKS = (timm_resnet.Bottleneck, torchvision_resnet.Bottleneck)
BASIC_BLOCKS = (timm_resnet.BasicBlock, torchvision_resnet.BasicBlock)


class ElasticResidual(nn.Module):
    """act(shortcut(x) + tail(branches(x))): `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width."""

    def __init__(
        self,
        branches: ElasticBranches,
        tail: nn.Sequential,
        shortcut: nn.Module | None,
        drop_path: nn.Module | None,
        act: nn.Module,
    ):
        super().__init__()
        self.branches = branches
        self.tail = tail
        self.shortcut = shortcut
        self.drop_path = drop_path
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.tail(self.branches(x))
        if self.drop_path is not None:
            y = self.drop_path(y)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.act(y + shortcut)

    def zero_init_last(self) -> None:
        """Zero the last norm's weight, as timm's `init_weights(zero_init_last=True)` asks of every block."""
        last_norm: Any = [module for name, module in self.tail.named_children() if name.startswith("bn")][-1]
        if getattr(last_norm, "weight", None) is not None:
            nn.init.zeros_(last_norm.weight)


def _act(block: Any, index: int) -> nn.Module:
    """timm keeps `act1..3`, torchvision one `relu` for all."""
    return copy.deepcopy(getattr(block, _act_name(block, index)))


def _act_name(block: Any, index: int) -> str:
    return f"act{index}" if hasattr(block, f"act{index}") else "relu"


def _is_identity(module: nn.Module | None) -> bool:
    return module is None or isinstance(module, nn.Identity)


def _inner_extras(block: Any, *names: str) -> "OrderedDict[str, nn.Module]":
    """timm's drop-block and anti-aliasing layers, where the block has them."""
    modules = ((name, getattr(block, name, None)) for name in names)
    return OrderedDict((name, module) for name, module in modules if module is not None and not _is_identity(module))


def _stack(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _finish(block: Any, branches: ElasticBranches, tail: list[tuple[str, nn.Module]], last_act: int) -> ElasticResidual:
    se = getattr(block, "se", None)
    if se is not None:
        tail = [*tail, ("se", se)]
    shortcut, drop_path = getattr(block, "downsample", None), getattr(block, "drop_path", None)
    return ElasticResidual(branches, _stack(*tail), shortcut, drop_path, _act(block, last_act))


def convert_bottleneck(block: Any, spec: ElasticSpec) -> ElasticResidual:
    """An elastic block with the weights of `block`. `CannotDivide` where the channels do not allow the shares."""
    if block.conv2.groups > 1:
        return _convert_grouped_bottleneck(block, spec)
    transforms = [
        _stack(("conv1", conv1), ("bn1", bn1), ("act1", _act(block, 1)), ("conv2", conv2))
        for conv1, bn1, conv2 in _divide_first(block, spec)
    ]
    branches = make_branches(transforms, spec, probe="act1")
    tail = [("bn2", block.bn2), *_inner_extras(block, "drop_block").items(), ("act2", _act(block, 2))]
    tail += [*_inner_extras(block, "aa").items(), ("conv3", block.conv3), ("bn3", block.bn3)]
    return _finish(block, branches, tail, 3)


def _divide_first(block: Any, spec: ElasticSpec) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
    """(conv1, bn1, conv2) of each branch, where conv2 mixes all channels of conv1: divided along its inputs."""
    width = divide_count(block.conv1.out_channels, spec.shares)
    return zip(
        divide_outputs(block.conv1, width),
        divide_norm(block.bn1, width),
        divide_inputs(block.conv2, width),
        strict=True,
    )


def _convert_grouped_bottleneck(block: Any, spec: ElasticSpec) -> ElasticResidual:
    groups = divide_count(block.conv2.groups, spec.shares, "groups")
    conv2s = divide_groups(block.conv2, groups)
    inner = [conv2.in_channels for conv2 in conv2s]
    outer = [conv2.out_channels for conv2 in conv2s]
    parts = zip(
        divide_outputs(block.conv1, inner),
        divide_norm(block.bn1, inner),
        conv2s,
        divide_norm(block.bn2, outer),
        divide_inputs(block.conv3, outer),
        strict=True,
    )
    transforms = []
    for conv1, bn1, conv2, bn2, conv3 in parts:
        layers = [("conv1", conv1), ("bn1", bn1), ("act1", _act(block, 1)), ("conv2", conv2), ("bn2", bn2)]
        layers += copy.deepcopy(_inner_extras(block, "drop_block")).items()
        layers += [("act2", _act(block, 2)), *copy.deepcopy(_inner_extras(block, "aa")).items(), ("conv3", conv3)]
        transforms.append(_stack(*layers))
    branches = make_branches(transforms, spec, probe="act2")
    return _finish(block, branches, [("bn3", block.bn3)], 3)


def convert_basic_block(block: Any, spec: ElasticSpec) -> ElasticResidual:
    """An elastic block with the weights of `block`. `CannotDivide` where the channels do not allow the shares."""
    transforms = []
    for conv1, bn1, conv2 in _divide_first(block, spec):
        layers = [("conv1", conv1), ("bn1", bn1), *copy.deepcopy(_inner_extras(block, "drop_block")).items()]
        layers += [("act1", _act(block, 1)), *copy.deepcopy(_inner_extras(block, "aa")).items(), ("conv2", conv2)]
        transforms.append(_stack(*layers))
    branches = make_branches(transforms, spec, probe="act1")
    return _finish(block, branches, [("bn2", block.bn2)], 2)


def bottleneck_sections(block: Any, spec: ElasticSpec) -> list[Section]:
    """The channels that a bottleneck's branches divide: up to its 3x3 convolution, past it where that is grouped."""
    if block.conv2.groups == 1:
        return [Section(("conv1", "bn1", _act_name(block, 1)), "conv2", (("conv3", "tail.conv3"),))]
    inner = ("conv1", "bn1", _act_name(block, 1), "conv2", "bn2", *_inner_extras(block, "drop_block"))
    return [Section((*inner, _act_name(block, 2), *_inner_extras(block, "aa")), "conv3")]


def basic_block_sections(block: Any, spec: ElasticSpec) -> list[Section]:
    """The channels that a basic block's branches divide: those between its two convolutions."""
    inner = ("conv1", "bn1", *_inner_extras(block, "drop_block"), _act_name(block, 1), *_inner_extras(block, "aa"))
    return [Section(inner, "conv2")]
