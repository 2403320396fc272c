"""ConvNeXt's block: timm's `ConvNeXtBlock`, a depthwise convolution, a layer norm and a two-layer perceptron.

The layer norm needs all channels, so the perceptron, nearly all of the cost, is what becomes elastic: its hidden
channels are divided over the branches. With D = U = identity it is the block's own function.

    shortcut + gamma * sum_i U(fc2_i(gelu(fc1_i(D(norm(depthwise(x)))))))
"""

import copy
from collections import OrderedDict
from typing import Any, Final

from timm.layers import Mlp
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from elastic_cnn.nn import CannotDivide, ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.convolution import as_convolution
from elastic_cnn.nn.split import divide_count, divide_inputs, divide_outputs
from elastic_cnn.surgery.sections import Section


class ElasticMlp(nn.Module):
    """A perceptron on every position, over several resolutions.

    channels_last: `(N, H, W, C)` -> `(N, H, W, C')` as linear layers take it, else `(N, C, H, W)` -> `(N, C', H, W)`.
    """

    channels_last: Final[bool]

    def __init__(self, branches: ElasticBranches, drop: nn.Module, channels_last: bool):
        super().__init__()
        self.branches = branches
        self.drop = drop
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            return self.drop(self.branches(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.drop(self.branches(x))


def convert_convnext_block(block: ConvNeXtBlock, spec: ElasticSpec) -> ConvNeXtBlock:
    """The block with an elastic perceptron, its weights kept. `CannotDivide` where the perceptron mixes positions or
    hidden channels (ConvNeXt-V2's global response norm) or has too few of them."""
    if type(block.mlp) is not Mlp or not isinstance(block.mlp.norm, nn.Identity):
        raise CannotDivide(f"its {type(block.mlp).__name__} normalises over the channels that would be divided")
    mlp = block.mlp
    fc1, fc2 = as_convolution(mlp.fc1), as_convolution(mlp.fc2)
    parts = divide_count(fc1.out_channels, spec.shares, "hidden channels")
    transforms = [
        nn.Sequential(OrderedDict(fc1=first, act=copy.deepcopy(mlp.act), drop1=copy.deepcopy(mlp.drop1), fc2=second))
        for first, second in zip(divide_outputs(fc1, parts), divide_inputs(fc2, parts), strict=True)
    ]
    branches = make_branches(transforms, spec, probe="act")
    elastic: Any = copy.deepcopy(block)
    elastic.mlp = ElasticMlp(branches, mlp.drop2, channels_last=not block.use_conv_mlp)
    return elastic


def convnext_sections(block: Any, spec: ElasticSpec) -> list[Section]:
    """The channels that its branches divide: the perceptron's hidden ones."""
    return [Section(("mlp.fc1", "mlp.act", "mlp.drop1"), "mlp.fc2", channels_last=not block.use_conv_mlp)]
