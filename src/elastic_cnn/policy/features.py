"""What the classifier of a network sees of an image: its features, in few numbers, so that a table can hold them.

Of more than `MOST` features as many random projections stand in their place (Johnson and Lindenstrauss): distances
between images stay about what they were, each image is projected by itself, and the same seed gives the same numbers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MOST = 64


class FeatureRecorder:
    """What `record_features` yields: the features of the network's latest forward."""

    def __init__(self, head: nn.Module | None) -> None:
        self.head = head
        self._seen: Tensor | None = None
        self._projections: dict[int, Tensor] = {}

    def _observe(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen = inputs[0].detach() if inputs and isinstance(inputs[0], Tensor) else None

    def features(self, logits: Tensor) -> Tensor:
        """(N, D) float32, D at most `MOST`: the input of the classifier, positions averaged; the logits (N, classes)
        where the network has no classifier of its own or it saw something else than a row an image."""
        seen = logits if self._seen is None or len(self._seen) != len(logits) else self._seen
        seen = seen.detach().float().cpu()
        if seen.ndim > 2:  # (N, C, H, W): a convolution classifies
            seen = seen.flatten(2).mean(dim=2)
        width = seen.shape[1]
        if width <= MOST:
            return seen
        if width not in self._projections:
            generator = torch.Generator().manual_seed(0)
            self._projections[width] = torch.randn(width, MOST, generator=generator) / MOST**0.5
        return seen @ self._projections[width]


def find_head(network: nn.Module) -> nn.Module | None:
    """The layer that makes the logits: what timm's `get_classifier` names, else the last linear layer, or None."""
    get = getattr(network, "get_classifier", None)
    named = get() if callable(get) else None
    if isinstance(named, nn.Linear | nn.Conv2d):
        return named
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None


@contextmanager
def record_features(network: nn.Module) -> Iterator[FeatureRecorder]:
    """Record what the classifier sees while `network` runs; the hook is removed at the end, also after an error."""
    recorder = FeatureRecorder(find_head(network))
    if recorder.head is None:
        yield recorder
        return
    handle = recorder.head.register_forward_pre_hook(recorder._observe)
    try:
        yield recorder
    finally:
        handle.remove()
