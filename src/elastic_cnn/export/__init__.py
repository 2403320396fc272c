"""Trained networks as files for other runtimes: ONNX, OpenVINO and `torch.export` programs.

`export_checkpoint` does the whole of it: the optimized form is captured as a graph for any batch and size, written,
read back by the runtime that it is for, and compared with the network; the file appears only if they agree. It loads
when it is first asked for: which formats there are (`formats.py`) is known without torch.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = ["Exported", "export_checkpoint", "load_exported"]

if TYPE_CHECKING:
    from elastic_cnn.export.job import Exported, export_checkpoint
    from elastic_cnn.export.load import load_exported
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"{__name__}.{'load' if name == 'load_exported' else 'job'}")
        return getattr(home, name)
