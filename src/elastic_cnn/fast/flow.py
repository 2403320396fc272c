"""Which layer's output goes to which norm, and nowhere else: seen while the network runs, not guessed from names.

A copy of the network runs once, on the meta device where it can. Every operator that takes a watched layer's output is
counted, so a norm is said to follow a layer only where it alone reads what that layer wrote, each time that it ran.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from elastic_cnn.nn.example import Example
from elastic_cnn.nn.trial import call, run_trial

Wanted = Callable[[nn.Module], bool]


@dataclass
class Flow:
    """What was seen. follows: {norm: the producer it alone reads}; reasons: {norm: why it has none}.

    example: what the network ran on.
    """

    example: Example
    follows: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


class _Uses(TorchDispatchMode):
    """Counts the operators that take each watched tensor; watched tensors are kept, so that an id stays theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[int, Tensor] = {}
        self.counts: Counter[int] = Counter()

    def watch(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.watched[id(value)] = value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in {id(leaf) for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)}:
            if leaf in self.watched:
                self.counts[leaf] += 1
        return func(*args, **(kwargs or {}))


class _Watch:
    """What one run shows: who wrote each map, who read it, and how often any operator did."""

    def __init__(self, network: nn.Module, producers: Wanted, norms: Wanted):
        self.uses = _Uses()
        self.writer: dict[int, str] = {}  # {id of an output: the producer's name}
        self.written: dict[str, list[int]] = {}
        self.read: dict[str, list[int]] = {}  # {norm: ids of its inputs, 0 for what is no batch of maps}
        self.kept: list[Any] = []
        self.weights: dict[str, int] = {}  # {producer: id of its weight}
        self.norms = [name for name, module in network.named_modules() if norms(module)]
        self.returned: set[int] = set()
        for name, module in network.named_modules():
            if producers(module):
                module.register_forward_hook(self._note_output(name))
                if isinstance(weight := getattr(module, "weight", None), Tensor):
                    self.uses.watch(weight)
                    self.weights[name] = id(weight)
            if norms(module):
                module.register_forward_pre_hook(self._note_input(name))

    def run(self, network: nn.Module, example: Example) -> None:
        with self.uses:
            outputs = call(network, example)
        self.returned = {id(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)}
        self.kept.append(outputs)

    def _note_output(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # the outermost producer takes a tensor that an inner one wrote
                self.uses.watch(output)
                batched = output.dim() == _dimensions(module)
                self.writer[id(output)] = name if batched else ""
                self.written.setdefault(name, []).append(id(output))

        return hook

    def _note_input(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            self.kept.append(inputs)  # alive, so that no later tensor gets its id
            self.read.setdefault(name, []).append(id(inputs[0]) if inputs and isinstance(inputs[0], Tensor) else 0)

        return hook

    def pair(self, norm: str) -> tuple[str, str]:
        """(the producer that `norm` follows, "") or ("", why it follows none)."""
        inputs = self.read.get(norm, [])
        if not inputs:
            return "", "a norm that did not run"
        names = {self.writer.get(tensor, "") for tensor in inputs}
        if "" in names:
            return "", "a norm without a convolution directly before it"
        if len(names) > 1:
            return "", "a norm that several layers share"
        producer = names.pop()
        if sorted(self.written[producer]) != sorted(inputs):
            return "", "a norm whose layer's output also goes elsewhere"
        if any(self.uses.counts[tensor] != 1 for tensor in inputs) or self.returned & set(inputs):
            return "", "a norm whose layer's output also goes elsewhere"
        if self.uses.counts[self.weights.get(producer, 0)] not in (0, len(inputs)):
            return "", "a norm whose layer's weight is also read elsewhere"
        return producer, ""


def _dimensions(producer: Any) -> int:
    """Of a batch of outputs whose channels are the second: those of the weight, four for branches of convolutions."""
    weight = getattr(producer, "weight", None)
    return weight.dim() if isinstance(weight, Tensor) else 4


def follow(network: nn.Module, producers: Wanted, norms: Wanted, example: Any = None) -> Flow:
    """Run a copy of `network` (values are not read) and pair norms with the producers before them.

    example: as `Example.of` takes it, by default what the network tells of itself. `ValueError` where it does not run.
    """
    watches: list[_Watch] = []
    used, _ = run_trial(
        network,
        example,
        lambda twin: watches.append(_Watch(twin, producers, norms)),
        run=lambda twin, given: watches[-1].run(twin, given),
    )
    flow = Flow(used)
    for name in watches[-1].norms:
        producer, reason = watches[-1].pair(name)
        (flow.reasons if reason else flow.follows)[name] = reason or producer
    return flow
