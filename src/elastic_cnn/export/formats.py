"""The formats of exported files: one entry a format, which writes it, reads it back and says what it can."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.export import ExportedProgram

from elastic_cnn.export.onnx_file import read_onnx, write_onnx
from elastic_cnn.export.openvino_file import convert, read_openvino, write_openvino
from elastic_cnn.export.program_file import read_program, write_program

Run = Callable[[Tensor], Tensor]
Shrink = Callable[[Path], Path]  # an ONNX file -> the same in 8 bits, beside it


@dataclass(frozen=True)
class Format:
    """One format.

    suffix: of its file; beside: of the second file that belongs to it. write: (file, program, metadata, shrink or
    None). read: (file, threads or None) -> (images `(N, C, H, W)` -> logits, metadata). int8: whether it holds 8 bits,
    so that `write` heeds `shrink`.
    """

    suffix: str
    write: Callable[[Path, ExportedProgram, dict[str, str], Shrink | None], None]
    read: Callable[[Path, int | None], tuple[Run, dict[str, str]]]
    beside: str | None = None
    int8: bool = True


def _onnx(file: Path, program: ExportedProgram, values: dict[str, str], shrink: Shrink | None) -> Path:
    onnx = file.with_name("float32.onnx")
    write_onnx(onnx, program, values)
    return onnx if shrink is None else shrink(onnx)


def _write_onnx(file: Path, program: ExportedProgram, values: dict[str, str], shrink: Shrink | None) -> None:
    os.replace(_onnx(file, program, values, shrink), file)


def _write_openvino(file: Path, program: ExportedProgram, values: dict[str, str], shrink: Shrink | None) -> None:
    write_openvino(file, convert(_onnx(file, program, values, shrink)), values)


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, read_onnx),
    "openvino": Format(".xml", _write_openvino, read_openvino, beside=".bin"),
    "pt2": Format(
        ".pt2",
        lambda file, program, values, shrink: write_program(file, program, values),
        lambda file, threads: read_program(file),
        int8=False,
    ),
}


def format_of(path: Path) -> Format:
    """The format of a file by its ending. `ValueError` for another."""
    for found in FORMATS.values():
        if path.suffix == found.suffix:
            return found
    raise ValueError(f"{path}: an exported file ends in {', '.join(one.suffix for one in FORMATS.values())}")
