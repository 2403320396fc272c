"""Optional packages are loaded where they are used; a missing one names the extra that brings it."""

import importlib
from types import ModuleType


class MissingExtra(ImportError):
    """An optional package is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` that says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingExtra(
            f"this needs the package {module.split('.')[0]!r}; install it with: pip install 'elastic-cnn[{extra}]'"
        ) from error
