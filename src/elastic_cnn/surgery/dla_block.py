"""DLA's blocks: timm's `DlaBottleneck` (DLA-X: with a grouped 3x3 convolution) and `DlaBasic`.

They are the residual blocks of `residual.py` but for the shortcut, which the tree around them computes and hands over.
"""

from typing import Any

from timm.models.dla import DlaBasic, DlaBottleneck
from torch import Tensor

from elastic_cnn.nn.branches import ElasticSpec
from elastic_cnn.surgery.residual import ElasticResidual, convert_basic_block, convert_bottleneck

BOTTLENECKS = (DlaBottleneck,)
BASIC_BLOCKS = (DlaBasic,)


class ElasticDlaBlock(ElasticResidual):
    """act(shortcut + tail(branches(x))): `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width.

    `shortcut` is `x` where it is not given; `children` belongs to the call of every node of a tree and is unused here.
    """

    def __init__(self, block: ElasticResidual):
        super().__init__(block.branches, block.tail, None, None, block.act)

    def forward(self, x: Tensor, shortcut: Tensor | None = None, children: list[Tensor] | None = None) -> Tensor:
        if shortcut is None:
            shortcut = x
        return self.act(self.tail(self.branches(x)) + shortcut)


def convert_dla_bottleneck(block: Any, spec: ElasticSpec) -> ElasticDlaBlock:
    """An elastic block with the weights of `block`. `CannotDivide` where the channels do not allow the shares."""
    return ElasticDlaBlock(convert_bottleneck(block, spec))


def convert_dla_basic_block(block: Any, spec: ElasticSpec) -> ElasticDlaBlock:
    """An elastic block with the weights of `block`. `CannotDivide` where the channels do not allow the shares."""
    return ElasticDlaBlock(convert_basic_block(block, spec))
