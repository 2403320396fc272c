"""Residual blocks of an optimized network as the native kernels know them."""

from dataclasses import replace
from typing import Any

import torch
from timm.layers import SEModule
from torch import Tensor, nn

from elastic_cnn.fast.describe import BlockDescription, BranchDescription
from elastic_cnn.fast.describe.judge import (
    MEANS_OF_TWO,
    bias_of,
    does_nothing,
    is_exactly,
    is_sigmoid,
    require,
    require_channels,
    require_convolution,
    require_half,
    require_relu,
    require_single_layers,
    require_squeeze,
    require_tensors,
    require_unblended,
    require_unhooked,
)
from elastic_cnn.kernels.packing import ConvBranch, ResidualBlock, SqueezeGate

Projection = tuple[Tensor, Tensor]  # weight (C_out, C_in), bias (C_out,)


def residual_block(block: BlockDescription, given_projection: Projection | None = None) -> ResidualBlock:
    """A block as the kernels know it. `Unsupported` says what they do not compute.

    given_projection: of the shortcut's convolution where it lies outside the block, as in DLA's trees.
    """
    require_unhooked(block.module)
    require_unblended(block)
    require_tensors(block.module, torch.float32, "cpu")
    require_channels(block.module)
    require(does_nothing(block.drop_path), f"its drop_path is {type(block.drop_path).__name__}")
    after = [module for _, module in block.after if not does_nothing(module)]
    third: Any = None  # conv3, where it follows the branches' sum
    if len(after) > 1 and len(block.high.layers) == 2 and isinstance(after[1], nn.Conv2d):
        require_relu(after[0])
        third, after = after[1], after[2:]
    require(all(isinstance(module, SEModule) for module in after[:1]), _follows(after))
    require(len(after) <= 1, _follows(after[1:]))
    high, bias = _branch(block.high, third)
    require_relu(block.act)
    stride, low = block.high.layers[1].conv.stride[0], None
    require(len(block.low) <= 1, "it has more than one low resolution")
    if block.low:
        require_half(block.low[0], MEANS_OF_TWO)
        require(stride == 1, "a low resolution with a stride")
        low, low_bias = _branch(block.low[0], third)
        require(block.low[0].layers[1].conv.stride == (1, 1), "a low resolution with a stride")
        if third is None:
            bias = bias + low_bias
        else:
            require(
                low.w2.shape[0] == high.w2.shape[0], "branches of unequal channels join before its last convolution"
            )
            low = replace(low, w3=None)
    projection = given_projection or projection_of(block.shortcut, stride)
    in_channels = high.w1.shape[1]
    require(projection is not None or (len(bias) == in_channels and stride == 1), "it needs a projection")
    return ResidualBlock(high, bias, stride, low, projection, _gate(after[0]) if after else None)


def _follows(modules: list[nn.Module]) -> str:
    return f"{type(modules[0]).__name__} follows its branches' sum" if modules else ""


def _branch(branch: BranchDescription, common: Any = None) -> tuple[ConvBranch, Tensor]:
    """(the branch, conv3's bias) of conv1, ReLU, conv2, ReLU, conv3; common: conv3, where it and the ReLU before it
    follow the branches' sum."""
    require_single_layers(branch, 3 if common is None else 2)
    first, second, *rest = branch.layers
    for layer in branch.layers:
        require(layer.norm is None, f"{type(layer.norm).__name__} stands between its layers")
    require_convolution(first.conv, 1)
    require_convolution(second.conv, 3, strides=(1, 2), grouped=True)
    require_relu(first.act)
    if common is None:
        require_relu(second.act)
    else:
        require(second.act is None, "an activation follows a branch that ends before its last convolution")
    for layer in rest:
        require(layer.act is None, "an activation follows its last convolution")
    third = rest[0].conv if rest else common
    require_convolution(third, 1)
    if common is None:
        require(second.conv.in_channels == second.conv.out_channels, "a 3x3 convolution that changes the channels")
    else:
        require(second.conv.groups == 1, "branches with groups join before its last convolution")
    weights = (first.conv.weight, bias_of(first.conv), second.conv.weight, bias_of(second.conv), third.weight)
    return ConvBranch(*weights, second.conv.groups), bias_of(third)


def projection_of(shortcut: Any, stride: int) -> Projection | None:
    """The 1x1 convolution of the block's stride that makes the shortcut; None where it is the input itself."""
    if does_nothing(shortcut):
        return None
    parts = list(shortcut) if is_exactly(shortcut, nn.Sequential) else [shortcut]
    layers: list[Any] = [part for part in parts if not does_nothing(part)]
    require(len(layers) == 1, "its shortcut is more than one convolution")
    require_convolution(layers[0], 1, strides=(stride,))
    return layers[0].weight.flatten(1), bias_of(layers[0])


def _gate(gate: Any) -> SqueezeGate:
    require_squeeze(gate)
    require(does_nothing(gate.bn), "its gate has a norm")
    require_relu(gate.act)
    require(is_sigmoid(gate.gate), f"its gate is {type(gate.gate).__name__}")
    require_convolution(gate.fc1, 1)
    require_convolution(gate.fc2, 1)
    return SqueezeGate(gate.fc1.weight.flatten(1), bias_of(gate.fc1), gate.fc2.weight.flatten(1), bias_of(gate.fc2))
