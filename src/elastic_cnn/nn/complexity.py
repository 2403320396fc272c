"""Parameters and multiply-adds of networks, counted by torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from elastic_cnn.nn.example import Example
from elastic_cnn.nn.trial import call, run_trial


@dataclass(frozen=True)
class Complexity:
    """Costs of one network at one input size, batch 1.

    parameters: count of trained numbers. macs: multiply-adds of convolutions and matrix products, which the paper calls
    FLOPs. uncounted: {operator: calls} of what runs but is not in `macs` (norms, activations, resampling, ...).
    """

    parameters: int
    macs: int
    uncounted: dict[str, int] = field(default_factory=dict)


_ATEN = torch.ops.aten
# On the meta device their kernels compute every pixel's place in Python (5 to 36 ms a call), to know the size alone.
_RESIZE = (_ATEN.upsample_bilinear2d.default, _ATEN.upsample_bicubic2d.default, _ATEN.upsample_nearest2d.default)


class _UncountedOperators(TorchDispatchMode):
    """Collects the operators that torch's counter has no formula for and that are more than a change of view."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet not in flop_registry and not func.is_view and packet.__name__ not in ("detach", "empty"):
            self.calls[packet.__name__] += 1
        if func in _RESIZE and args[0].device.type == "meta":
            return _resized(args[0], args[1])
        return func(*args, **(kwargs or {}))


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """What resizing `maps` (N, C, H, W), on the meta device, to (height, width) gives there."""
    channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((*maps.shape[:2], *size), dtype=maps.dtype, device="meta", memory_format=layout)


def count(network: nn.Module, example: Any = (3, 224, 224)) -> Complexity:
    """Parameters and multiply-adds of one forward pass in eval mode; nothing is computed for real where the meta device
    can run the network.

    example: (channels, height, width) of one image, or what else `elastic_cnn.nn.example.Example.of` takes. `CannotRun`
    (a `ValueError`) where the network does not run on it.
    """
    counter, operators = FlopCounterMode(display=False), _UncountedOperators()

    def run(twin: nn.Module, found: Example) -> None:
        nonlocal counter, operators
        counter, operators = FlopCounterMode(display=False), _UncountedOperators()
        placed = found.like(twin)  # before anything is counted
        with counter, operators:
            call(twin, placed)

    run_trial(network, tuple(example) if isinstance(example, list) else example, run=run)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(parameters, counter.get_total_flops() // 2, dict(operators.calls.most_common()))
