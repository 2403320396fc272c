"""What a network does with its photos, seen through hooks: where tensors go, and what enters and leaves a module."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from elastic_cnn.surgery.layers import is_elementwise

Seen = dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """The arguments with which a module was called."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def copy(self) -> "Call":
        """With tensors of its own: a module may change its input in place."""
        args, kwargs = tree_map(_clone, (self.args, self.kwargs))
        return Call(args, kwargs)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        tensors = [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def first(self, images: int) -> "Call":
        """Of the first images alone."""
        args, kwargs = tree_map(lambda x: x[:images] if isinstance(x, Tensor) else x, (self.args, self.kwargs))
        return Call(args, kwargs)


def _clone(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


class _Reached(Exception):
    def __init__(self, call: Call) -> None:
        self.call = call


@torch.no_grad()
def call_of(network: nn.Module, module: nn.Module, images: Tensor) -> Call:
    """How `network` calls `module` on `images`; what comes after it is not computed. `ValueError` where it does not."""

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached(Call(args, kwargs))

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        network(images)
    except _Reached as reached:
        return reached.call
    finally:
        handle.remove()
    raise ValueError(f"{type(network).__name__} does not run its {type(module).__name__}")


@contextmanager
def tapped(inputs: dict[str, nn.Module], outputs: dict[str, nn.Module]) -> Iterator[Seen]:
    """Within the block, the first tensors that enter and leave these modules, by the given keys; of the last call."""
    seen: Seen = {}

    def entering(key: str) -> Any:
        return lambda _, args: seen.__setitem__(key, args[0].clone())  # what follows may work in place

    def leaving(key: str) -> Any:
        return lambda _, args, output: seen.__setitem__(key, output.clone())

    handles = [module.register_forward_pre_hook(entering(key)) for key, module in inputs.items()]
    handles += [module.register_forward_hook(leaving(key)) for key, module in outputs.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Flow:
    """In which order the modules of interest run, and what follows what.

    order: names in order of running. chained: pairs of them where the second is called with the first's output alone.
    """

    order: tuple[str, ...]
    chained: frozenset[tuple[str, str]]


@torch.no_grad()
def trace(network: nn.Module, names: Sequence[str], images: Tensor) -> Flow:
    """The flow of `images` through the named modules."""
    made: list[tuple[str, Any, Any]] = []  # tensors stay alive, so that their identity tells them apart
    modules = {name: network.get_submodule(name) for name in names}

    def note(name: str) -> Any:
        return lambda _, args, kwargs, output: made.append((name, (args, kwargs), output))

    handles = [module.register_forward_hook(note(name), with_kwargs=True) for name, module in modules.items()]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    chained = set()
    for (before, _, output), (after, (args, kwargs), _) in itertools.pairwise(made):
        given = [leaf for leaf in tree_leaves((args, kwargs)) if leaf is not None]
        if len(given) == 1 and given[0] is output and len(args) == 1:
            chained.add((before, after))
    return Flow(tuple(dict.fromkeys(name for name, _, _ in made)), frozenset(chained))


@torch.no_grad()
def last_activation(block: nn.Module, call: Call) -> nn.Module | None:
    """The activation function whose output is the block's, None where the block ends otherwise."""
    last: list[tuple[nn.Module, Any]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        last[:] = [(module, output)]

    leaves = [m for m in block.modules() if not list(m.children()) and not isinstance(m, nn.Identity)]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        output = run(block, call)
    finally:
        for handle in handles:
            handle.remove()
    ends = bool(last) and last[0][1] is output and last[0][0] is not block
    return last[0][0] if ends and is_elementwise(last[0][0]) else None


@torch.no_grad()
def norms_after(network: nn.Module, modules: Sequence[nn.Module], call: Call) -> dict[nn.Module, Any]:
    """{module: the norm with running statistics that reads its output}, for those of the modules that have one."""
    made: dict[int, tuple[nn.Module, Any]] = {}  # by the identity of the output, which stays alive
    readers: dict[nn.Module, nn.Module] = {}

    def note_output(module: nn.Module, _: Any, output: Any) -> None:
        made[id(output)] = (module, output)

    def note_reader(leaf: nn.Module, args: tuple[Any, ...]) -> None:
        if args and id(args[0]) in made:
            readers.setdefault(made[id(args[0])][0], leaf)

    ends = [m for m in network.modules() if getattr(m, "running_mean", None) is not None or not list(m.children())]
    handles = [module.register_forward_hook(note_output) for module in modules]
    handles += [leaf.register_forward_pre_hook(note_reader) for leaf in ends if not isinstance(leaf, nn.Identity)]
    try:
        run(network, call)
    finally:
        for handle in handles:
            handle.remove()
    return {m: leaf for m, leaf in readers.items() if getattr(leaf, "running_mean", None) is not None}


@torch.no_grad()
def run(module: nn.Module, call: Call) -> Any:
    """Call the module, on copies of the tensors."""
    call = call.copy()
    return module(*call.args, **call.kwargs)
