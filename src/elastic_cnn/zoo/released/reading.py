"""Read a file of weights, a released checkpoint or anybody's, without running what it holds."""

import argparse
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elastic_cnn.zoo.checkpoint import read_weights

_SCALAR = np.float64(0).__reduce__()[0]  # numpy's function that rebuilds a number from a pickle

# What checkpoints hold beside tensors and plain values: numpy's numbers (accuracies) and a training run's settings.
# All of it is data: none of these calls anything that the file could choose.
ALLOWED: tuple[Any, ...] = (
    (_SCALAR, "numpy.core.multiarray.scalar"),  # before numpy 2
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    argparse.Namespace,
)


def read_released(path: str | Path) -> dict[str, Any]:
    """The content of a `.pth.tar`, `.pth` or `.safetensors` file, on the CPU: tensors, numbers and texts.

    Never executes a pickle: whatever goes beyond `ALLOWED` is refused. Raises `ValueError` that names the file where it
    is missing, truncated, no checkpoint, or holds such an object.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {path}: give a released checkpoint (.pth.tar)")
    if path.suffix == ".safetensors" or _holds_safetensors(path):
        return dict(read_weights(path))
    try:
        with torch.serialization.safe_globals(list(ALLOWED)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what cannot be read raises in any case
            warnings.filterwarnings("ignore", ".*looks like a TorchScript archive")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds more than tensors, numbers and settings, or is no checkpoint "
            f"({_reason(error)}); code in a file is never run. Load it where it is trusted, and save its state_dict() "
            "alone"
        ) from error
    except Exception as error:  # half an instruction of a pickle fails in many ways
        if "TorchScript archive" in str(error):
            raise ValueError(
                f"{path} is a TorchScript program: load it where it is trusted, and save its state_dict() alone"
            ) from error
        raise ValueError(f"{path} is not a readable checkpoint ({_reason(error)}): it may be truncated") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} instead of a dict of tensors")
    return content


def _holds_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, whatever its name: the length of a JSON object, and the object."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:  # told where it is read
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _reason(error: BaseException) -> str:
    """What was met. torch wraps it in advice to trust the file, which has no place here."""
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0].partition(" was not an allowed global")[0][:200] or type(error).__name__
