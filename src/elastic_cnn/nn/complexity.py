"""Parameters and multiply-adds of networks, counted by torch."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import nn
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


class _UncountedOperators(TorchDispatchMode):
    """Collects the operators that torch's counter has no formula for and that are more than a change of view."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet not in flop_registry and not func.is_view and packet.__name__ not in ("detach", "empty"):
            self.calls[packet.__name__] += 1
        return func(*args, **(kwargs or {}))


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
