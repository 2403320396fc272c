"""Batch norm statistics estimated anew on a few batches, without labels."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


def recalibrate(network: nn.Module, batches: Iterable[Tensor], device: str | torch.device = "cpu") -> int:
    """Replace the running statistics of every batch norm by their mean over `batches`; in place.

    Low-resolution branches see smoother maps than the layers whose weights they took, so their old statistics do not
    fit. Weights do not change, labels are not needed. batches: images `(N, C, H, W)` each, prepared as for testing.

    Returns the number of norms. `ValueError` where the network has no batch norm, `batches` is empty, or what
    they come to is not finite; the statistics stay as they were.
    """
    norms: list[Any] = [
        module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        raise ValueError(f"{type(network).__name__} has no batch norm: there is nothing to recalibrate")
    seen = 0

    def counted() -> Iterable[Tensor]:
        nonlocal seen
        for images in batches:
            seen += len(images)
            yield images

    before = {norm: (norm.running_mean.clone(), norm.running_var.clone()) for norm in norms}
    update_bn(counted(), network, device=torch.device(device))
    finite = all(bool(norm.running_mean.isfinite().all() and norm.running_var.isfinite().all()) for norm in norms)
    if not (seen and finite):
        for norm, (mean, variance) in before.items():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
        raise ValueError(
            "what the network computes on these photos is not finite: its weights are too large or broken"
            if seen
            else "no image to recalibrate on"
        )
    return len(norms)
