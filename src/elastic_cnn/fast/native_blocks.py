"""Which blocks of an optimized network the native kernels compute, and what they are to them."""

from dataclasses import replace
from typing import Any

import timm.models.dla as timm_dla
import timm.models.resnet as timm_resnet
import torch
import torchvision.models.resnet as torchvision_resnet
from timm.layers import SEModule
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import does_nothing
from elastic_cnn.fast.flow import has_hooks
from elastic_cnn.fast.residual_form import FoldedElasticBottleneck, FoldedElasticResidual, FoldedElasticSEBottleneck
from elastic_cnn.kernels.packing import ConvBranch, ResidualBlock, SqueezeGate
from elastic_cnn.nn.resample import AreaDownsample, BilinearDownsample, Upsample

PLAIN = (timm_resnet.Bottleneck, torchvision_resnet.Bottleneck, timm_dla.DlaBottleneck)
BLOCKS = (*PLAIN, FoldedElasticBottleneck)


class CannotBeNative(ValueError):
    """A block keeps its form; the message says why."""


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise CannotBeNative(otherwise)


def describe(block: nn.Module, given_projection: tuple[Tensor, Tensor] | None = None) -> ResidualBlock:
    """A block as the kernels know it. `CannotBeNative` says what they do not compute.

    given_projection: (weight, bias) of the shortcut's convolution where it lies outside the block, as in DLA's trees.
    """
    require(isinstance(block, BLOCKS), "not a residual block that the kernels know")
    require(not any(has_hooks(module) for module in block.modules()), "hooks look at it")
    parameters = list(block.parameters())
    require(
        all(p.dtype == torch.float32 and p.device.type == "cpu" for p in parameters),
        "its weights are not float32 on CPU",
    )
    described = _describe_plain(block) if isinstance(block, PLAIN) else _describe_elastic(block)
    if given_projection is not None:
        described = replace(described, projection=given_projection)
    _check_shortcut(described)
    return described


def _describe_plain(block: Any) -> ResidualBlock:
    for name in ("bn1", "bn2", "bn3", "drop_block", "aa", "drop_path"):
        require(does_nothing(getattr(block, name, None)), f"its {name} does something of its own")
    acts = [getattr(block, name, None) or block.relu for name in ("act1", "act2", "act3")]
    high, bias = _branch([block.conv1, acts[0], block.conv2, acts[1], block.conv3])
    require_relu(acts[2])
    stride = block.conv2.stride[0]
    projection = projection_of(getattr(block, "downsample", None), stride)
    return ResidualBlock(high, bias, stride, None, projection, _gate(getattr(block, "se", None)))


def _describe_elastic(block: Any) -> ResidualBlock:
    require(not isinstance(block, FoldedElasticResidual), "its branches end before the last convolution")
    high, bias = _branch(list(block.high.children()))
    require_relu(block.act)
    low = None
    if len(block.low):
        require(len(block.low) == 1, "it has more than one low resolution")
        low, low_bias = _low(block.low[0])
        bias = bias + low_bias
    stride = block.high.conv2.stride[0]
    require(low is None or stride == 1, "a low resolution with a stride")
    se = block.se if isinstance(block, FoldedElasticSEBottleneck) else None
    return ResidualBlock(high, bias, stride, low, projection_of(block.shortcut, stride), _gate(se))


def _low(branch: Any) -> tuple[ConvBranch, Tensor]:
    require_half(branch)
    return _branch(list(branch.transform.children()))


def require_half(branch: Any) -> None:
    """Of a low branch: area (or bilinear) down by two, bilinear up by two."""
    down, up = branch.down, branch.up
    require(branch.scale == 2, f"a low resolution of 1/{branch.scale}")
    area = isinstance(down, (AreaDownsample, BilinearDownsample)) and down.factor == 2
    require(area, f"downsampling by {type(down).__name__}")
    require(type(up) is Upsample and up.mode == "bilinear", f"upsampling by {getattr(up, 'mode', type(up).__name__)}")


def require_relu(module: nn.Module) -> None:
    require(type(module) is nn.ReLU, f"its activation is {type(module).__name__}")


def _branch(layers: list[Any]) -> tuple[ConvBranch, Tensor]:
    """(the branch, conv3's bias) of [conv1, act1, conv2, act2, conv3]."""
    require(len(layers) == 5, "its layers are not 1x1, 3x3, 1x1 with an activation between")
    conv1, act1, conv2, act2, conv3 = layers
    for conv, size in ((conv1, 1), (conv2, 3), (conv3, 1)):
        require(type(conv) is nn.Conv2d, f"{type(conv).__name__} in place of a convolution")
        require(conv.kernel_size == (size, size), f"a kernel of {conv.kernel_size} in place of {size} x {size}")
        require(conv.dilation == (1, 1), "a dilated convolution")
        require(conv.padding == (size // 2, size // 2) and conv.padding_mode == "zeros", "another padding")
    require_relu(act1)
    require_relu(act2)
    require(conv1.stride == (1, 1) and conv3.stride == (1, 1), "a stride in a 1x1 convolution")
    require(conv1.groups == 1 and conv3.groups == 1, "a grouped 1x1 convolution")
    require(conv2.stride in ((1, 1), (2, 2)), f"a stride of {conv2.stride}")
    require(conv2.in_channels == conv2.out_channels, "a 3x3 convolution that changes the channels")
    branch = ConvBranch(conv1.weight, _bias(conv1), conv2.weight, _bias(conv2), conv3.weight, conv2.groups)
    return branch, _bias(conv3)


def _bias(conv: nn.Conv2d) -> Tensor:
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def projection_of(shortcut: nn.Module | None, stride: int) -> tuple[Tensor, Tensor] | None:
    if does_nothing(shortcut):
        return None
    layers = (
        [m for m in shortcut.children() if not does_nothing(m)] if isinstance(shortcut, nn.Sequential) else [shortcut]
    )
    require(len(layers) == 1 and type(layers[0]) is nn.Conv2d, "its shortcut is more than one convolution")
    conv: Any = layers[0]
    plain = conv.kernel_size == (1, 1) and conv.groups == 1 and conv.padding == (0, 0)
    require(plain and conv.stride == (stride, stride), "its shortcut is not a 1x1 convolution of the block's stride")
    return conv.weight.flatten(1), _bias(conv)


def _gate(se: Any) -> SqueezeGate | None:
    if se is None or does_nothing(se):
        return None
    require(type(se) is SEModule and not se.add_maxpool, f"its attention is {type(se).__name__}")
    require(does_nothing(se.bn) and type(se.act) is nn.ReLU, "its gate has a norm or another activation")
    sigmoid = type(se.gate).__name__ in ("Sigmoid", "SigmoidModule") or se.gate is torch.sigmoid
    require(sigmoid, f"its gate is {type(se.gate).__name__}")
    return SqueezeGate(se.fc1.weight.flatten(1), _bias(se.fc1), se.fc2.weight.flatten(1), _bias(se.fc2))


def _check_shortcut(block: ResidualBlock) -> None:
    out, in_channels = len(block.bias), block.high.w1.shape[1]
    require(block.projection is not None or (out == in_channels and block.stride == 1), "it needs a projection")
