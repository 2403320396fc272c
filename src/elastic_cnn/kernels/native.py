"""Load the native kernels and say why they do or do not run.

    ELASTIC_KERNELS=off       never load them: the plain PyTorch forms serve
    ELASTIC_KERNELS=prebuilt  load what the installation compiled, never compile on first use
    ELASTIC_KERNELS_ISA=avx2  use that instruction set even where the processor has a wider one (also: avx512)

A part is "inference", "bf16" (inference in bfloat16) or "training" (`build.PARTS`); each is a library of its own.
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from elastic_cnn.kernels import build


@dataclass(frozen=True)
class Loaded:
    """The outcome of loading one part. path: the library, None where there is none; reason: why, in words."""

    path: Path | None
    reason: str

    def __bool__(self) -> bool:
        return self.path is not None


@functools.cache
def load(part: str = "inference") -> Loaded:
    """Load a part of the kernels into `torch.ops.elastic_cnn`, compiling it where needed; once a process.

    Never raises for a machine that cannot have them: the answer is false then and says why.
    """
    wish = os.environ.get("ELASTIC_KERNELS", "auto")
    if wish not in ("auto", "prebuilt", "off"):
        raise ValueError(f"ELASTIC_KERNELS must be auto, prebuilt or off, got {wish!r}")
    if wish == "off":
        return Loaded(None, "switched off by ELASTIC_KERNELS=off")
    try:
        found = build.find(part)
        if found is None and wish == "prebuilt":
            return Loaded(None, "the installation compiled none, and ELASTIC_KERNELS=prebuilt forbids compiling now")
        path = found or build.find_or_build(part)
        torch.ops.load_library(str(path))
    except (build.CannotBuild, OSError) as error:
        return Loaded(None, " ".join(str(error).split()))
    return Loaded(path, "compiled with the installation" if path.parent != build.cache_folder() else "compiled here")


def has_matrix_unit() -> bool:
    """Whether a matrix unit (AMX) multiplies bfloat16 for the native kernels of this process: products are cheap then
    beside passes over wide maps."""
    return level(torch.bfloat16) == "amx_bf16"


def level(dtype: torch.dtype = torch.float32) -> str:
    """The instruction set that the inference kernels use for maps of this dtype, `avx512`, `avx2`, `avx512_bf16` or
    `amx_bf16`; empty where they do not run."""
    if dtype == torch.bfloat16:
        return torch.ops.elastic_cnn.bf16_level() if load("bf16") else ""
    return torch.ops.elastic_cnn.kernel_level() if load() else ""
