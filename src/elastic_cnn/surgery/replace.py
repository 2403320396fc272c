"""Put one module in the place of another, so that nothing around it notices: names, lists, hooks, training modes."""

from collections.abc import Iterator
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


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of `old` under every name that it has, in plain lists and attributes too, with the hooks
    on it and in the same training mode; layers of `new` that are frozen (in eval mode while `old` trains) stay so."""
    _follow_mode(old, new)
    for table, hooks in _take_hooks(old).items():  # the very tables, so that a hook's handle still removes it
        setattr(new, table, hooks)
    for parent in list(network.modules()):
        for child, module in list(parent._modules.items()):  # named_children() names a module only once
            if module is old:
                setattr(parent, child, new)
        _replace_in_values(vars(parent), old, new)


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


def _replace_in_values(values: dict[str, Any], old: nn.Module, new: nn.Module) -> None:
    """What holds modules beside torch's register: plain attributes, lists, tuples and dicts, one in another."""
    found = [
        name
        for name, value in values.items()
        if (value is old or (type(value) in _CONTAINERS and value)) and name not in _REGISTERS and _holds(value, old)
    ]
    for name in found:
        values[name] = _exchange(values[name], old, new)


def _holds(value: Any, module: nn.Module) -> bool:
    if value is module:
        return True
    if type(value) in (list, tuple):
        return any(_holds(item, module) for item in value)
    return type(value) is dict and any(_holds(item, module) for item in value.values())


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
