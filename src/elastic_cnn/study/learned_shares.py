"""Shares of the branches that follow what a trained network does: more of a stage at the resolution it responds at."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from elastic_cnn.policy.scores import BlockInfo, block_info, scale_policy

STEPS = 8  # shares are eighths, which divide the groups of the small networks


def learn_shares(network: nn.Module, batches: Iterable[Tensor]) -> dict[int, tuple[float, float]]:
    """{stage: (share of the high branch, of the low one)}, between a quarter and three quarters, in eighths.

    network: trained, of two scales, with half of each layer at either. batches: normalised images, (N, 3, H, W) each.
    A block's preference is the mean of its scores (Equation 5) over the mean of their absolute values: 1 where every
    image responds more at high resolution, -1 where every one does at low. A stage takes the mean of its blocks; half
    of the layer moves by up to a quarter. `ValueError` where a block's name tells no stage, or there are more scales.
    """
    blocks: list[BlockInfo] = []
    scores: list[Tensor] = []  # (N, blocks) each
    for images in batches:
        blocks = blocks or block_info(network, images)
        scores.append(scale_policy(network, images).double())
    if unfit := [block.name for block in blocks if block.stage is None or len(block.scales) != 2]:
        raise ValueError(f"shares are learned for blocks of two scales in numbered stages; not so: {', '.join(unfit)}")
    found = torch.cat(scores)  # (N, blocks)
    preferences = found.mean(0) / found.abs().mean(0).clamp_min(torch.finfo(found.dtype).tiny)  # (blocks,)
    shares = {}
    for stage in sorted({block.stage for block in blocks if block.stage is not None}):
        members = [number for number, block in enumerate(blocks) if block.stage == stage]
        high = round(STEPS * (0.5 + float(preferences[members].mean()) / 4)) / STEPS
        shares[stage] = (high, 1 - high)
    return shares
