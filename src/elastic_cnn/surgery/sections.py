"""What a rule of surgery tells about a block besides how to divide it: the channels that run through the branches.

A section is a run of layers whose channels surgery deals out to the branches, the first ones to the high resolution.
Which channels come first is free: put in another order, together with the weights that make and read them, the block
computes what it did. `permute` does so.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.nn.branches import ElasticSpec
from elastic_cnn.nn.split import is_plain_convolution, is_standardized_convolution
from elastic_cnn.surgery.layers import find_gate, is_norm


@dataclass(frozen=True)
class Section:
    """Layers of one block that are divided over the branches, by their dotted names in the block.

    layers: what makes the channels from the block's input, in order of running; empty where they are the input's own.
    last: the convolution that reads them and sums over the branches; None where the branches' outputs stand side by
        side. (The name "" is the block itself.)
    following: {name of a convolution that runs on the sum: its name in the elastic block}.
    channels_last: whether the layers take maps as `(N, H, W, C)`.
    """

    layers: tuple[str, ...]
    last: str | None = None
    following: tuple[tuple[str, str], ...] = ()
    channels_last: bool = False


def section_of_convolution(name: str, conv: nn.Conv2d) -> Section:
    """The section of a convolution that is divided by itself (`convert_convolution`)."""
    if conv.groups > 1 or is_standardized_convolution(conv):
        return Section((name,))
    return Section((), name)


def convolution_sections(conv: nn.Conv2d, spec: ElasticSpec) -> list[Section]:
    """Of a convolution that is a block by itself."""
    return [section_of_convolution("", conv)]


def linear_sections(linear: nn.Linear, spec: ElasticSpec) -> list[Section]:
    """Of a linear layer over the channels of maps."""
    return [Section((), "", channels_last=True)]


def layer(block: nn.Module, name: str) -> Any:
    """The layer of this dotted name; the block itself for "" (a single convolution)."""
    return block.get_submodule(name)


def unit(block: nn.Module, section: Section) -> int | None:
    """How many neighbouring channels (of those that the first layer makes) move together; None where none may move.

    Channels of one group of a grouped convolution, or of a group norm, stay together. Channels that the block is given
    or hands on cannot be put in another order here: other layers make and read them.
    """
    if not section.layers or section.last is None:
        return None
    first = layer(block, section.layers[0])
    if not isinstance(first, nn.Linear) and (not isinstance(first, nn.Conv2d) or first.groups > 1):
        return None
    channels = each = width(first)
    size = 1  # in channels of the first layer
    for name in section.layers[1:]:
        module = layer(block, name)
        if nn.utils.parametrize.is_parametrized(module):
            return None
        if isinstance(module, nn.Conv2d):
            if module.in_channels != each or not (is_plain_convolution(module) or is_standardized_convolution(module)):
                return None
            size = math.lcm(size, _covering(module.in_channels // module.groups, channels, each))
            each = module.out_channels
        elif isinstance(module, nn.GroupNorm):
            size = math.lcm(size, _covering(each // module.num_groups, channels, each))
    return size if channels % size == 0 and channels > size else None


def _covering(group: int, channels: int, each: int) -> int:
    """The least number of the first layer's `channels` that are whole groups of `group` of a later layer's `each`."""
    return group * channels // math.gcd(group * channels, each)


def width(module: Any) -> int:
    """Output channels of a convolution or linear layer."""
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)


@torch.no_grad()
def permute(block: nn.Module, section: Section, order: Tensor) -> None:
    """Put the section's units (see `unit`) into `order`, in place; the block's function stays what it is."""
    count = len(order)
    first = layer(block, section.layers[0])
    _reorder(first, order, count, 0, "weight", "bias", "gain")
    for name in section.layers[1:]:
        module = layer(block, name)
        if isinstance(module, nn.Conv2d):
            _reorder(module, order, count, 0, "weight", "bias", "gain")
        elif is_norm(module):
            _reorder(module, order, count, 0, "weight", "bias", "running_mean", "running_var")
        elif (gate := find_gate(module)) is not None:
            mixing = [m for m in gate.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            _reorder(mixing[0], order, count, 1, "weight")
            _reorder(mixing[-1], order, count, 0, "weight", "bias")
    _reorder(layer(block, str(section.last)), order, count, 1, "weight")


def _reorder(module: nn.Module, order: Tensor, count: int, dim: int, *names: str) -> None:
    """Move `count` equal parts of the named tensors along `dim`."""
    for name in names:
        tensor = getattr(module, name, None)
        if tensor is not None and tensor.dim() > dim:
            parts = tensor.data.unflatten(dim, (count, -1))
            tensor.data = parts.index_select(dim, order.to(tensor.device)).flatten(dim, dim + 1).contiguous()
