"""How the weights of a network lie in memory, and in which precision."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """Lay out the weights of 2-D layers channels last, in place; returns the network. `Module.to` refuses networks that
    hold tensors of five dimensions (3-D layers, several kernels to choose from), which stay here as they are."""

    def lay_out(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    network._apply(lay_out)
    return network


def in_precision(network: Network, dtype: torch.dtype) -> Network:
    """Give the real weights of a network this precision, in place; returns it. `Module.to` gives it to complex ones,
    too, and takes their imaginary part away."""
    network._apply(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    return network
