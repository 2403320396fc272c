"""Dense layers, ConvNeXt's perceptron, and branches in blocks of other families, in their faster forms."""

from typing import Any

import torch
from timm.models.densenet import DenseLayer
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import FoldedBranches, divide
from elastic_cnn.fast.fold import scale_branches, scale_outputs
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.surgery.convnext_block import ElasticMlp
from elastic_cnn.surgery.dense_layer import ElasticDenseLayer


class FoldedElasticDenseLayer(DenseLayer):
    """DenseNet's layer: norm1 (it reads all features, so it stays) and branches of conv1, act, conv2."""

    def __init__(self, norm1: nn.Module, branches: FoldedBranches):
        nn.Module.__init__(self)
        self.norm1 = norm1
        self.branches = branches

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:  # lists of (N, C_i, H, W) -> (N, growth_rate, H, W)
        return self.branches(self.norm1(torch.cat([x] if isinstance(x, Tensor) else x, 1)))


def fold_dense_layer(layer: ElasticDenseLayer) -> FoldedElasticDenseLayer:
    """The optimized form of an elastic dense layer whose inner norms are folded already."""
    return FoldedElasticDenseLayer(layer.norm1, FoldedBranches(*divide(layer.branches)))


def fold_branches(branches: ElasticBranches) -> FoldedBranches | None:
    """Branches inside a block that keeps its own forward; None for kinds whose plain form is the fastest known."""
    kind: Any = branches
    if type(branches) is not ElasticBranches and (hasattr(kind, "gate") or kind.parts or kind.concatenates):
        return None
    return FoldedBranches(*divide(branches))


def fold_mlp(mlp: ElasticMlp) -> ElasticMlp:
    """The same perceptron with its branches in their faster form, in place."""
    folded: Any = mlp
    folded.branches = FoldedBranches(*divide(mlp.branches))
    return folded


def fold_layer_scale(block: Any) -> bool:
    """Multiply ConvNeXt's layer scale into the last layer of its perceptron, in place; whether that was possible."""
    gamma, mlp = getattr(block, "gamma", None), block.mlp
    if gamma is None:
        return False
    scale = gamma.detach().double()
    if isinstance(mlp, ElasticMlp):
        scale_branches(mlp.branches, scale, None)
    elif isinstance(getattr(mlp, "fc2", None), (nn.Linear, nn.Conv2d)):
        scale_outputs(mlp.fc2, scale, None)
    else:
        return False
    block.gamma = None
    return True
