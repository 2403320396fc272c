"""Parameters and multiply-adds by torch's own counters, without memory or arithmetic."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn import create_model


def count(name, size=224):
    """(millions of parameters, billions of multiply-adds of one image of size x size)"""
    with torch.device("meta"):
        network, image = create_model(name).eval(), torch.empty(1, 3, size, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    return sum(p.numel() for p in network.parameters()) / 1e6, counter.get_total_flops() / 2e9
