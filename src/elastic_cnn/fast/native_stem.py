"""A network's first layers as a native call: convolution, ReLU and max pooling."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.fast.branches_form import does_nothing
from elastic_cnn.kernels.packing import pack_stem


class NativeStem(nn.Module):
    """Convolution, ReLU and 3x3 max pooling as one native call: `(N, C_in, H, W)` -> `(N, C_out, H / 4, W / 4)`."""

    def __init__(self, conv: Any):
        super().__init__()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().clone()
        self.register_buffer("weights", pack_stem(conv.weight.detach()), persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.weights: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.elastic_cnn.stem(x, self.weights, self.bias, self.kernel, self.stride)


def native_stem(layers: Sequence[nn.Module]) -> nn.Module:
    """These layers as `NativeStem` where they are what it computes, else one after the other."""
    doing = [layer for layer in layers if not does_nothing(layer)]
    return NativeStem(doing[0]) if _is_stem(doing) else nn.Sequential(*layers)


def _is_stem(layers: Sequence[Any]) -> bool:
    if [type(layer) for layer in layers] != [nn.Conv2d, nn.ReLU, nn.MaxPool2d]:
        return False
    conv, _, pool = layers
    size, stride = conv.kernel_size[0], conv.stride[0]
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    square = conv.kernel_size == (size, size) and conv.stride == (stride, stride) and size % 2 == 1
    pooled = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode) == (3, 2, 1, 1, False)
    return plain and square and conv.padding == (size // 2, size // 2) and pooled
