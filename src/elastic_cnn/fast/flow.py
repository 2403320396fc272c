"""Which layer's output goes to which norm, and nowhere else: seen while the network runs, not guessed from names.

A copy of the network runs once on the meta device. Every operator that takes a watched layer's output is counted, so a
norm is said to follow a layer only where it alone reads what that layer wrote, each time that the layer ran.
"""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Wanted = Callable[[nn.Module], bool]


@dataclass
class Flow:
    """What was seen. follows: {norm: the producer it alone reads}; reasons: {norm: why it has none}."""

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


def clear_hooks(network: nn.Module) -> None:
    """Take every hook off `network`, in place (for copies that run for our own ends)."""
    for module in network.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()


def has_hooks(module: nn.Module) -> bool:
    """Whether `module` itself carries a forward hook."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def follow(network: nn.Module, producers: Wanted, norms: Wanted, example: Sequence[Tensor]) -> Flow:
    """Run a copy of `network` on `example` (values are not read) and pair norms with the producers before them.

    `ValueError` where the network runs neither on the meta device nor on the CPU.
    """
    failure: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            twin = copy.deepcopy(network).to(device).eval()
            return _watch(twin, producers, norms, [tensor.to(device) for tensor in example])
        except (RuntimeError, NotImplementedError, AssertionError, ValueError, TypeError) as error:
            failure = error
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in example)
    raise ValueError(
        f"{type(network).__name__} does not run on an input of {shapes}: {failure}; give an example input that it takes"
    ) from failure


def _watch(network: nn.Module, producers: Wanted, norms: Wanted, example: list[Tensor]) -> Flow:
    clear_hooks(network)
    uses = _Uses()
    writer: dict[int, str] = {}  # {id of an output: the producer's name}
    written: dict[str, list[int]] = {}
    read: dict[str, list[int]] = {}  # {norm: ids of its inputs}
    kept: list[Any] = []

    def note_output(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):  # the outermost producer takes a tensor that an inner one wrote
                uses.watch(output)
                writer[id(output)] = name
                written.setdefault(name, []).append(id(output))

        return hook

    def note_input(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            kept.append(inputs)  # alive, so that no later tensor gets its id
            read.setdefault(name, []).append(id(inputs[0]) if inputs and isinstance(inputs[0], Tensor) else 0)

        return hook

    wanted = {}
    for name, module in network.named_modules():
        if producers(module):
            module.register_forward_hook(note_output(name))
        if norms(module):
            wanted[name] = module
            module.register_forward_pre_hook(note_input(name))
    with torch.no_grad(), uses:
        outputs = network(*example)
    returned = {id(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)}
    flow = Flow()
    for name in wanted:
        pair = _pair(name, read.get(name, []), writer, written, uses.counts, returned)
        (flow.reasons if pair[1] else flow.follows)[name] = pair[1] or pair[0]
    return flow


def _pair(
    norm: str,
    inputs: list[int],
    writer: dict[int, str],
    written: dict[str, list[int]],
    counts: Counter[int],
    returned: set[int],
) -> tuple[str, str]:
    """(producer, "") or ("", reason)."""
    if not inputs:
        return "", "a norm that did not run"
    names = {writer.get(tensor, "") for tensor in inputs}
    if "" in names:
        return "", "a norm without a convolution directly before it"
    if len(names) > 1:
        return "", "a norm that several layers share"
    producer = names.pop()
    if sorted(written[producer]) != sorted(inputs):
        return "", "a norm whose layer's output also goes elsewhere"
    if any(counts[tensor] != 1 for tensor in inputs) or returned & set(inputs):
        return "", "a norm whose layer's output also goes elsewhere"
    return producer, ""
