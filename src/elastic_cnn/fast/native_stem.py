"""A network's first layers as a native call: convolution, ReLU and max pooling."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.fast.describe import Unsupported, read_layers
from elastic_cnn.fast.describe.judge import (
    bias_of,
    does_nothing,
    is_exactly,
    require,
    require_channels,
    require_convolution,
    require_relu,
)
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import float_words, pack_stem


class NativeStem(nn.Module):
    """Convolution, ReLU and 3x3 max pooling as one native call: `(N, C_in, H, W)` -> `(N, C_out, H / 4, W / 4)`."""

    def __init__(self, conv: Any, dtype: torch.dtype):
        super().__init__()
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.register_buffer("weights", pack_stem(conv.weight.detach(), dtype), persistent=False)
        self.register_buffer("bias_words", float_words(bias_of(conv)), persistent=False)  # float32 in any precision
        self.weights: Tensor
        self.bias_words: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return ops.call("stem", x, self.weights, self.bias_words.view(torch.float32), self.kernel, self.stride)


def native_stem(layers: Sequence[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """These layers as `NativeStem` where they are what it computes, else one after the other."""
    try:
        return NativeStem(_convolution(layers), dtype)
    except Unsupported:
        return nn.Sequential(*layers)


def _convolution(layers: Sequence[nn.Module]) -> nn.Conv2d:
    """The convolution of one with a ReLU and 3x3 max pooling of stride 2 after it. `Unsupported` for anything else."""
    found = read_layers((str(i), layer) for i, layer in enumerate(layers) if not does_nothing(layer))
    require(len(found) == 1, "more than one convolution")
    conv, pools = found[0].conv, found[0].others
    require(found[0].norm is None and len(pools) == 1, "not a convolution, a ReLU and a pooling")
    require_relu(found[0].act)
    pool: Any = pools[0]
    require(is_exactly(pool, nn.MaxPool2d), "another pooling")
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices)
    require(settings == (3, 2, 1, 1, False, False), "another pooling")
    size, stride = conv.kernel_size[0], conv.stride[0]
    require(size % 2 == 1, "a kernel of even size")
    require_convolution(conv, size, strides=(stride,))
    require_channels(conv)
    return conv
