"""Gradient checkpointing of any backbone's blocks: their inner activations are computed again in the backward pass.

Unlike timm's switch it works for every family, leaves parameter names alone, and does not count a batch twice in the
running statistics of batch norms, so that a run with it learns what a run without it learns.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_blocks(network: nn.Module) -> list[str]:
    """Let each block of `network` keep its input alone, in training; in place. Returns the names of the blocks.

    A block is a module below the network and its containers (`Sequential` and the like) with two convolutions or more.
    """
    names = []
    for name, block in _blocks(network, ""):
        # a partial, not a closure: copies of the network then run their own block
        block.forward = functools.partial(_checkpointed, block, type(block).forward)
        names.append(name)
    return names


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, CONTAINERS):
            yield from _blocks(child, f"{prefix}{name}.")
        elif sum(isinstance(part, nn.Conv2d) for part in child.modules()) > 1:
            yield f"{prefix}{name}", child


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not block.training:
        return forward(block, *args, **kwargs)
    contexts = functools.partial(_contexts, block)
    return checkpoint(forward, block, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms normalise with the batch's statistics but do not note them."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count
