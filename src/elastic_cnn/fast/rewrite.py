"""Changes to a network that can be taken back: what every step of `optimize_for_inference` is made of."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

_MISSING: Any = object()


class Root(nn.Module):
    """A parent for the network as a whole, so that it, too, can be replaced."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network: Any = network


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
        self._do(
            lambda: network.to(memory_format=memory_format), lambda: network.to(memory_format=torch.contiguous_format)
        )

    def replace(self, root: Root, old: nn.Module, new: nn.Module) -> None:
        """Put `new` in the place of `old` under every name that it has, in the same training mode."""
        new.train(old.training)
        for parent in list(root.modules()):
            for name, module in list(parent._modules.items()):  # named_children() names a module only once
                if module is old:
                    self.set(parent, name, new)

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


def _put(module: nn.Module, attribute: str, value: Any) -> None:
    if value is _MISSING:
        delattr(module, attribute)
    else:
        setattr(module, attribute, value)
