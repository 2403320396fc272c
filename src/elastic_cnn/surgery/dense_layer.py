"""DenseNet's layer: timm's `DenseLayer`.

Its first norm runs once, on all the features so far, and the branches share what follows (paper, section 3):

    sum_i U(conv2_i(relu(norm2_i(conv1_i(D(relu(norm1(concatenated features))))))))

The 3x3 convolution mixes all bottleneck channels, so its weight is divided along its inputs: with D = U = identity the
function is the layer's own.
"""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.densenet import DenseLayer
from torch import Tensor, nn

from elastic_cnn.nn.branches import ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.split import divide_count, divide_inputs, divide_norm, divide_outputs
from elastic_cnn.surgery.sections import Section


class ElasticDenseLayer(DenseLayer):
    """New features `(N, growth_rate, H, W)` from the list of all features so far, `(N, C_i, H, W)` each; any H and W.

    Derived from timm's layer, whose list handling and checkpointing it keeps and which timm's DenseNet looks for.
    """

    def __init__(self, norm1: nn.Module, branches: ElasticBranches, drop_rate: float, grad_checkpointing: bool):
        nn.Module.__init__(self)  # the base class would build the layers that the branches replace
        self.norm1 = norm1
        self.branches = branches
        self.drop_rate = drop_rate
        self.grad_checkpointing = grad_checkpointing

    def bottleneck_fn(self, xs: list[Tensor]) -> Tensor:
        """What gradient checkpointing computes again: the whole layer but dropout."""
        return self.branches(self.norm1(torch.cat(xs, 1)))

    def forward(self, x: Tensor | list[Tensor]) -> Tensor:
        features = [x] if isinstance(x, Tensor) else x
        if self.grad_checkpointing and self.any_requires_grad(features):
            if torch.jit.is_scripting():
                raise RuntimeError("gradient checkpointing is not supported in TorchScript")
            y = self.call_checkpoint_bottleneck(features)
        else:
            y = self.bottleneck_fn(features)
        if self.drop_rate > 0:
            y = F.dropout(y, p=self.drop_rate, training=self.training)
        return y


def convert_dense_layer(layer: Any, spec: ElasticSpec) -> ElasticDenseLayer:
    """An elastic layer with the weights of `layer`. `CannotDivide` where the channels do not allow the shares."""
    width = divide_count(layer.conv1.out_channels, spec.shares)
    parts = zip(
        divide_outputs(layer.conv1, width),
        divide_norm(layer.norm2, width),  # timm's norms hold their activation
        divide_inputs(layer.conv2, width),
        strict=True,
    )
    transforms = [
        nn.Sequential(OrderedDict([("conv1", conv1), ("norm2", norm2), ("conv2", conv2)]))
        for conv1, norm2, conv2 in parts
    ]
    branches = make_branches(transforms, spec, probe="norm2")
    return ElasticDenseLayer(layer.norm1, branches, layer.drop_rate, layer.grad_checkpointing)


def dense_layer_sections(layer: Any, spec: ElasticSpec) -> list[Section]:
    """The channels that its branches divide: those between its two convolutions."""
    return [Section(("conv1", "norm2"), "conv2")]
