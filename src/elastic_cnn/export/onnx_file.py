"""ONNX files: written by torch's exporter, run by ONNX Runtime."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from elastic_cnn.export.formats import Run, Shrink
from elastic_cnn.extras import require

OPSET = 18  # the exporter's own: no conversion after it, and known to every runtime of the last years
INPUT, OUTPUT = "images", "logits"
AXES = ("batch", "channels", "height", "width")  # of the input


def write(file: Path, program: ExportedProgram, metadata: dict[str, str], shrink: Shrink | None) -> None:
    """The program as an ONNX file, of 8 bits where `shrink` makes it so."""
    os.replace(intermediate(file, program, metadata, shrink), file)


def intermediate(file: Path, program: ExportedProgram, metadata: dict[str, str], shrink: Shrink | None) -> Path:
    """The same under a name of its own beside `file`, for formats that are made of ONNX files."""
    onnx = file.with_name("float32.onnx")
    write_onnx(onnx, program, metadata)
    return onnx if shrink is None else shrink(onnx)


def write_onnx(path: Path, program: ExportedProgram, metadata: dict[str, str]) -> None:
    """`program` as one ONNX file: input `images`, output `logits`, `metadata` in the model's properties.

    The input's free axes are named `batch`, `height` and `width`, and those of every other tensor after them.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "export")
    captured: Any = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    _name_axes(captured.model)
    captured.model.metadata_props.update(metadata)
    captured.model.producer_name = "elastic-cnn"
    captured.save(path, external_data=False)


def _name_axes(model: Any) -> None:
    """Free axes by their meaning, in place: the exporter calls them `s77` and the like, in every tensor's shape."""
    names: dict[str, str] = {}
    for axis, dim in zip(AXES, model.graph.inputs[0].shape, strict=True):
        if isinstance(dim, int):
            continue
        symbols = re.findall(r"[A-Za-z_]\w*", str(dim.value))
        if len(symbols) == 1:  # alone, or in `32*s53`, for a network that takes multiples of 32
            names[symbols[0]] = axis if symbols[0] == dim.value else f"{axis}_parts"
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names) or r"(?!)")
    values = [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
    for value in values:
        for index, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int) and dim.value is not None:
                value.shape[index] = pattern.sub(lambda found: names[found[0]], str(dim.value))


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


def read(path: str | Path, threads: int | None = None) -> tuple[Run, dict[str, str]]:
    """The file as a function of images `(N, C, H, W)`, run by ONNX Runtime, and its metadata."""
    opened = session(path, threads)
    name = opened.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(opened.run(None, {name: images.numpy()})[0]))

    return run, dict(opened.get_modelmeta().custom_metadata_map)
