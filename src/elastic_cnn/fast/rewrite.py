"""Changes to a network that can be taken back: what every step of `optimize_for_inference` is made of."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from elastic_cnn.nn import channels_last

_MISSING: Any = object()
_REGISTERS = frozenset(vars(nn.Module()))


class Root(nn.Module):
    """A parent for the network as a whole, so that it, too, can be replaced."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network: Any = network
        # Attributes that hold modules beside torch's register, in lists, tuples and dicts: as owner and name.
        self.plain_holders = [
            (module, name)
            for module in network.modules()
            for name, value in vars(module).items()
            if name not in _REGISTERS and _holds_module(value)
        ]


class Change:
    """One rewrite. name: of the module that it is about; form: what it is now; table: where the report notes that."""

    def __init__(self, name: str, form: str, table: Literal["folded", "rewritten"] | None = "rewritten"):
        self.name, self.form, self.table = name, form, table
        self._redo: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []

    def set(self, module: nn.Module, attribute: str, value: Any) -> None:
        """Give `module` this parameter, buffer, child or attribute."""
        before = getattr(module, attribute, _MISSING)
        self._do(lambda: setattr(module, attribute, value), lambda: _put(module, attribute, before))

    def add_buffer(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Give `module` a buffer that it has not, which no state dict holds."""
        self._do(lambda: module.register_buffer(name, value, persistent=False), lambda: delattr(module, name))

    def set_class(self, module: nn.Module, kind: type[nn.Module]) -> None:
        """Let `module` compute as `kind` does, with the children and parameters that it has."""
        before = type(module)
        self._do(lambda: setattr(module, "__class__", kind), lambda: setattr(module, "__class__", before))

    def set_format(self, network: nn.Module, memory_format: torch.memory_format) -> None:
        """Lay out the weights of `network` so; back to contiguous ones."""
        last = memory_format == torch.channels_last
        self._do(
            lambda: channels_last(network) if last else network.to(memory_format=memory_format),
            lambda: network.to(memory_format=torch.contiguous_format),
        )

    def replace(self, root: Root, old: nn.Module, new: nn.Module) -> None:
        """Put `new` in the place of `old` under every name that it has, in plain lists and attributes, too, in the same
        training mode."""
        new.train(old.training)
        for parent in list(root.modules()):
            if old not in parent._modules.values():
                continue
            for name, module in list(parent._modules.items()):  # named_children() names a module only once
                if module is old:
                    self.set(parent, name, new)
        for owner, name in root.plain_holders:
            value = vars(owner)[name]
            if (exchanged := _exchange(value, old, new)) is not value:
                self._set_plain(owner, name, exchanged)

    def _set_plain(self, module: nn.Module, name: str, value: Any) -> None:
        """An attribute that torch does not register."""
        own, before = vars(module), vars(module)[name]
        self._do(lambda: own.update({name: value}), lambda: own.update({name: before}))

    def undo(self) -> None:
        for step in reversed(self._undo):
            step()

    def redo(self) -> None:
        for step in self._redo:
            step()

    def _do(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        redo()
        self._redo.append(redo)
        self._undo.append(undo)


def _holds_module(value: Any) -> bool:
    if type(value) in (list, tuple):
        return any(map(_holds_module, value))
    return any(map(_holds_module, value.values())) if type(value) is dict else isinstance(value, nn.Module)


def _exchange(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """A copy of `value`, a list, tuple or dict, with `new` for `old`; `value` itself where it does not hold it."""
    if value is old:
        return new
    if type(value) is dict:
        items = {key: _exchange(item, old, new) for key, item in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    if type(value) in (list, tuple):
        parts = [_exchange(item, old, new) for item in value]
        return type(value)(parts) if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return value


def _put(module: nn.Module, attribute: str, value: Any) -> None:
    if value is _MISSING:
        delattr(module, attribute)
    else:
        setattr(module, attribute, value)
