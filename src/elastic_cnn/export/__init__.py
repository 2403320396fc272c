"""Trained networks as files for other runtimes: ONNX, OpenVINO and `torch.export` programs.

`export_checkpoint` does the whole of it: the optimized form is captured as a graph for any batch and size, written,
read back by the runtime that it is for, and compared with the network; the file appears only if they agree.
"""

from elastic_cnn.export.job import Exported, export_checkpoint
from elastic_cnn.export.load import load_exported

__all__ = ["Exported", "export_checkpoint", "load_exported"]
