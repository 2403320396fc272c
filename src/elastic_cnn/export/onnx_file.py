"""ONNX files: written by torch's exporter, run by ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from elastic_cnn.extras import require

OPSET = 18  # the exporter's own: no conversion after it, and known to every runtime of the last years
INPUT, OUTPUT = "images", "logits"
Run = Callable[[Tensor], Tensor]


def write_onnx(path: Path, program: ExportedProgram, metadata: dict[str, str]) -> None:
    """`program` as one ONNX file: input `images`, output `logits`, `metadata` in the model's properties."""
    for module in ("onnx", "onnxscript"):
        require(module, "export")
    captured: Any = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    captured.model.metadata_props.update(metadata)
    captured.model.producer_name = "elastic-cnn"
    captured.save(path, external_data=False)


def session(path: str | Path, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU. `ValueError` where the file is not one that it can run."""
    runtime = require("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions derive from Exception directly
        raise ValueError(f"{path} is not a readable ONNX file ({str(error).strip()[:200]})") from error


def read_onnx(path: str | Path, threads: int | None = None) -> tuple[Run, dict[str, str]]:
    """The file as a function of images `(N, C, H, W)`, run by ONNX Runtime, and its metadata."""
    opened = session(path, threads)
    name = opened.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(opened.run(None, {name: images.numpy()})[0]))

    return run, dict(opened.get_modelmeta().custom_metadata_map)
