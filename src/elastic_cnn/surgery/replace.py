"""Put one module in the place of another, so that nothing around it notices: names, lists, hooks, training modes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
_REGISTERS = ("_modules", "_parameters", "_buffers")  # torch's own
_CONTAINERS = (list, tuple, dict)
_NEUTRAL = (nn.Sequential, nn.ModuleList, nn.Identity)


class Holders:
    """Who holds each of some modules, seen in one walk over networks: parents by name, and attributes in which modules
    stand beside torch's register, in lists, tuples and dicts.

    blocks: the modules that shall be replaced. networks: what may hold them, parts of it that were taken out included.
    """

    def __init__(self, blocks: Iterable[nn.Module], *networks: nn.Module):
        self._wanted = {id(block) for block in blocks}
        self._children: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)  # by id: (parent, name of the child)
        self._plain: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)  # by id: (owner, name of the attribute)
        seen: set[nn.Module] = set()
        for network in networks:
            for holder in network.named_modules(memo=seen):
                self._look_at(holder[1])

    def _look_at(self, holder: nn.Module) -> None:
        for name, child in holder._modules.items():  # named_children() names a module only once
            if id(child) in self._wanted:
                self._children[id(child)].append((holder, name))
        for name, value in vars(holder).items():
            if name not in _REGISTERS and (isinstance(value, nn.Module) or (type(value) in _CONTAINERS and value)):
                for found in _modules_in(value, self._wanted):
                    self._plain[found].append((holder, name))

    def replace(self, old: nn.Module, new: nn.Module) -> None:
        """Put `new` in the place of `old`, one of the blocks, under every name that it has, in plain lists and
        attributes too, with the hooks on it and in the same training mode; layers of `new` that are frozen (in eval
        mode while `old` trains) stay so. `new` can be replaced in its turn."""
        _follow_mode(old, new)
        for table, hooks in _take_hooks(old).items():  # the very tables, so that a hook's handle still removes it
            setattr(new, table, hooks)
        for parent, name in self._children[id(old)]:
            setattr(parent, name, new)
        for owner, name in self._plain[id(old)]:
            vars(owner)[name] = _exchange(vars(owner)[name], old, new)
        for table_of in (self._children, self._plain):
            table_of[id(new)] = table_of.pop(id(old))


def _take_hooks(module: nn.Module) -> dict[str, Any]:
    """The tables of the hooks on `module`, which gets empty ones."""
    held = {table: getattr(module, table) for table in _HOOKS if hasattr(module, table)}
    for table, hooks in held.items():
        setattr(module, table, type(hooks)() if isinstance(hooks, dict) else None)
    return held


@contextmanager
def hooks_lifted(module: nn.Module) -> Iterator[None]:
    """Without the hooks on `module` itself, so that copies made of it meanwhile have none."""
    held = _take_hooks(module)
    try:
        yield
    finally:
        for table, hooks in held.items():
            setattr(module, table, hooks)


def _modules_in(value: Any, wanted: Collection[int]) -> set[int]:
    """The ids of those of the wanted modules that are this value, or stand in it: lists, tuples, dicts, nested."""
    if id(value) in wanted:
        return {id(value)}
    if type(value) not in _CONTAINERS:
        return set()
    items = value.values() if type(value) is dict else value
    return {found for item in items for found in _modules_in(item, wanted)}


def _exchange(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """`value` with `new` for `old`; lists and dicts in place, as others may hold them too."""
    if value is old:
        return new
    if type(value) is list:
        value[:] = [_exchange(item, old, new) for item in value]
    elif type(value) is dict:
        value.update({key: _exchange(item, old, new) for key, item in value.items()})
    elif type(value) is tuple:
        return tuple(_exchange(item, old, new) for item in value)
    return value


def _follow_mode(old: nn.Module, new: nn.Module) -> None:
    if len({module.training for module in old.modules()}) == 1:
        new.train(old.training)
        return
    layers = [m for m in new.modules() if not type(m).__module__.startswith("elastic_cnn.") and type(m) not in _NEUTRAL]
    modes = [(layer, layer.training) for layer in layers]  # of the copies of the layers of `old`, as they were there
    new.train(old.training)
    for layer, training in modes:
        layer.training = training
