"""The formats of exported files: one entry a format, which says what it can and where its code is.

A format is written in a file of its own beside this one, and told here by name (`MODULE:NAME`), so that asking which
formats there are imports none of them. This module imports nothing heavy: the command's help asks it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elastic_cnn.tasks.spec import loaded

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

Run = Callable[["Tensor"], "Tensor"]  # images (N, C, H, W) -> logits
Shrink = Callable[[Path], Path]  # an ONNX file -> the same in 8 bits, beside it


@dataclass(frozen=True)
class Format:
    """One format.

    suffix: of its file; beside: of the second file that belongs to it. writer and reader: `MODULE:NAME` of what
    `write` and `read` call. int8: whether it holds 8 bits, so that `writer` heeds `shrink`.
    """

    suffix: str
    writer: str
    reader: str
    beside: str | None = None
    int8: bool = True

    def write(self, file: Path, program: "ExportedProgram", metadata: dict[str, str], shrink: Shrink | None) -> None:
        """Write the program with its metadata; shrink: what makes it one of 8 bits, None for float32."""
        loaded(self.writer)(file, program, metadata, shrink)

    def read(self, file: Path, threads: int | None) -> tuple[Run, dict[str, str]]:
        """The file as a function on so many threads (None: torch's), and its metadata. `ValueError` if it is broken."""
        run, metadata = loaded(self.reader)(file, threads)
        return run, metadata


_HERE = "elastic_cnn.export."
FORMATS = {
    "onnx": Format(".onnx", f"{_HERE}onnx_file:write", f"{_HERE}onnx_file:read"),
    "openvino": Format(".xml", f"{_HERE}openvino_file:write", f"{_HERE}openvino_file:read", beside=".bin"),
    "pt2": Format(".pt2", f"{_HERE}program_file:write", f"{_HERE}program_file:read", int8=False),
}


TARGETS = {
    "any": "fewest multiply-adds",
    "amx": "processors with AMX, in bfloat16: branches joined before their last convolution",
}


def format_of(path: Path) -> Format:
    """The format of a file by its ending. `ValueError` for another."""
    for found in FORMATS.values():
        if path.suffix == found.suffix:
            return found
    raise ValueError(f"{path}: an exported file ends in {', '.join(one.suffix for one in FORMATS.values())}")
