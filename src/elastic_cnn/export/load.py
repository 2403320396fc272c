"""Reading an exported file back, whatever its format."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from elastic_cnn.export.description import card_from
from elastic_cnn.export.onnx_file import read_onnx
from elastic_cnn.export.openvino_file import read_openvino
from elastic_cnn.export.program_file import read_program
from elastic_cnn.zoo.checkpoint import NetworkCard

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
READERS = {".onnx": read_onnx, ".xml": read_openvino, ".pt2": lambda path, threads=None: read_program(path)}
Run = Callable[[Tensor], Tensor]


def load_exported(path: str | Path, threads: int | None = None) -> tuple[Run, NetworkCard]:
    """The file of `elastic export` as a function, images `(N, C, H, W)` -> logits, and its card.

    threads: of the runtime (by default torch's number; a `.pt2` program runs on torch's threads).
    Raises `ValueError`, naming the file, where it is missing, broken, of an unknown format or without a card.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise ValueError(f"{path}: an exported file ends in {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    run, values = READERS[path.suffix](path, threads)
    return run, card_from(values, path)
