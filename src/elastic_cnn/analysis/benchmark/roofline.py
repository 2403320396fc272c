"""The processor's measured peaks, and the least time that a network's convolutions can take under them."""

import copy
import ctypes
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SOURCE = Path(__file__).with_name("peaks.cpp")
ROUNDS = 1_000_000  # of multiply-adds a thread: some ten milliseconds, so that a few bursts run undisturbed
BURSTS = 60
FLOATS = 64 * 2**20  # an array of 256 MiB, well beyond caches


@dataclass(frozen=True)
class Peaks:
    """flops: float32 operations a second on registers (a multiply-add is two). bytes: a second, to and from memory.
    bf16_flops: operations in bfloat16, on the matrix unit where there is one; 0 where the processor has none."""

    flops: float
    bytes: float
    threads: int
    bf16_flops: float = 0.0

    def of(self, dtype: str) -> float:
        """Operations a second in `float32` or `bfloat16`; 0 where they are not known."""
        return {"float32": self.flops, "bfloat16": self.bf16_flops}.get(dtype, 0.0)


BYTES = {"float32": 4, "bfloat16": 2}  # of an element


def measure_peaks(threads: int) -> Peaks:
    """Measure both peaks with `threads` threads; about two seconds. `ValueError` where there is no C++ compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise ValueError("measuring the processor's peaks needs a C++ compiler: install g++, or leave out --roofline")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peaks.so"
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC", "-pthread"]
        done = subprocess.run(
            [compiler, *flags, str(SOURCE), "-o", str(library)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError(f"{compiler} could not compile {SOURCE.name}: {done.stderr.strip()[:300]}")
        return _call(ctypes.CDLL(str(library)), threads)


def _call(library: Any, threads: int) -> Peaks:
    for function in (library.peak_flops, library.peak_bf16_flops, library.peak_bytes):
        function.restype = ctypes.c_double
    flops, bf16_flops = (
        max(function(threads, ctypes.c_long(ROUNDS)) for _ in range(BURSTS))
        for function in (library.peak_flops, library.peak_bf16_flops)
    )
    return Peaks(flops, library.peak_bytes(threads, ctypes.c_size_t(FLOATS), 12), threads, bf16_flops)


@dataclass(frozen=True)
class Bound:
    """Of one forward pass. flops: of convolutions and linear layers. seconds: the least time for them under the peaks,
    layer by layer, each reading its input and weights and writing its output once. memory: the part of the seconds
    that is spent in layers bound by memory."""

    flops: float
    seconds: float
    memory: float


def bound(network: nn.Module, batch: int, size: int, peaks: Peaks, dtype: str = "float32") -> Bound:
    """The roofline of `network` for images `(batch, C, size, size)`, maps and weights of `dtype`; nothing is computed.
    `ValueError` where the peak of that dtype is not known.

    Fused layers need less memory traffic than is counted here: the bound holds for layers that run one by one.
    """
    flops = peaks.of(dtype)
    if not flops:
        raise ValueError(f"the processor's peak in {dtype} is not known")
    twin = copy.deepcopy(network).to("meta").eval()
    layers: list[tuple[float, float]] = []  # (operations, bytes)

    def note(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = layer.weight
        operations = 2.0 * output.numel() * weights[0].numel()
        layers.append((operations, float(BYTES[dtype]) * (inputs[0].numel() + weights.numel() + output.numel())))

    kinds = [module for module in twin.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in kinds:
        layer.register_forward_hook(note)
    channels = next(layer.in_channels for layer in kinds if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        twin(torch.empty(batch, channels, size, size, device="meta"))
    times = [(operations / flops, moved / peaks.bytes) for operations, moved in layers]
    seconds = sum(max(pair) for pair in times)
    slow = sum(moved for busy, moved in times if moved > busy)
    return Bound(sum(operations for operations, _ in layers), seconds, slow / seconds)
