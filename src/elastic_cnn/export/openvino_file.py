"""OpenVINO files (`.xml` and, beside it, `.bin`), converted from ONNX files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from elastic_cnn.export.formats import Run, Shrink
from elastic_cnn.export.onnx_file import intermediate
from elastic_cnn.extras import require

SECTION = "elastic_cnn"  # of the model's runtime information


def write(file: Path, program: ExportedProgram, metadata: dict[str, str], shrink: Shrink | None) -> None:
    """The program as an OpenVINO file, of 8 bits where `shrink` makes it so."""
    write_openvino(file, convert(intermediate(file, program, metadata, shrink)), metadata)


def convert(onnx_path: str | Path) -> Any:
    """The OpenVINO model of an ONNX file. Not by `convert_model`, which reports its use and writes into the home."""
    return require("openvino", "export").Core().read_model(str(onnx_path))


def write_openvino(path: Path, model: Any, metadata: dict[str, str]) -> None:
    """Save as `path` (.xml) and its twin (.bin), weights in the precision that they have."""
    for key, text in metadata.items():
        model.set_rt_info(text, [SECTION, key])
    require("openvino", "export").save_model(model, str(path), compress_to_fp16=False)


def compile_model(model: Any, threads: int | None = None, exact: bool = True) -> Run:
    """The model as a function of images `(N, C, H, W)` on the CPU.

    exact: compute in float32; else OpenVINO chooses (bfloat16 where the processor has it).
    """
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    if exact:
        options["INFERENCE_PRECISION_HINT"] = "f32"
    compiled = require("openvino", "export").Core().compile_model(model, "CPU", options)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled(images.numpy())[0].copy())

    return run


def read(path: str | Path, threads: int | None = None) -> tuple[Run, dict[str, str]]:
    """The file as a function of images, and its metadata. `ValueError` where it, or its weights, cannot be read."""
    openvino = require("openvino", "export")
    if not Path(path).with_suffix(".bin").is_file():
        raise ValueError(f"{path} lacks its weights {Path(path).with_suffix('.bin').name} beside it")
    try:
        model = openvino.Core().read_model(str(path))
        run = compile_model(model, threads)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a readable OpenVINO file ({str(error).strip()[:200]})") from error
    return run, _metadata(model)


def _metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info([SECTION]):
        return {}
    return {key: value.astype(str) for key, value in model.get_rt_info([SECTION]).astype(dict).items()}
