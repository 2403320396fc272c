"""Machines for the time model: this one, measured; a GPU, by its data sheet."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.depth_search.model import Machine

# NVIDIA H200, bfloat16: 990 TFLOP/s and 4.3 TB/s of the data sheet, at the parts of them that good kernels reach. A
# grouped convolution of 4 channels a group fills a quarter of a tensor core's tile. Launches: of a captured CUDA graph.
# Not measured.
H200 = Machine(
    name="NVIDIA H200, bfloat16 (data sheet)",
    peak=990e12,
    bandwidth=0.85 * 4.3e12,
    cache=25e6,
    cache_bandwidth=0.85 * 4.3e12,
    overhead=2e-6,
    efficiency={"pointwise": 0.6, "grouped": 0.15, "dense": 0.6, "matmul": 0.6},
)


def _rate(work: float, run: Callable[[], object], seconds: float) -> float:
    """The median of `work` over a call's time, calls repeated for `seconds`."""
    run()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        began = time.perf_counter()
        run()
        rates.append(work / (time.perf_counter() - began))
    return statistics.median(rates)


def _convolution_rate(kind: str, seconds: float) -> float:
    """FLOP/s of one convolution of ResNeXt50's third stage, batch 4, channels_last: the middle of the network."""
    channels, groups, kernel = {"pointwise": (512, 1, 1), "grouped": (512, 32, 3), "dense": (128, 1, 3)}[kind]
    x = torch.randn(4, channels, 14, 14).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels // groups, kernel, kernel).to(memory_format=torch.channels_last)
    flops = 2 * x.numel() * channels // groups * kernel**2
    with torch.no_grad():
        return _rate(flops, lambda: F.conv2d(x, weight, padding=kernel // 2, groups=groups), seconds)


def measure_cpu(seconds: float = 0.5, cache: float = 16e6) -> Machine:
    """This CPU at torch's present number of threads, in about eight times `seconds`.

    Its peak is that of the fastest of a large matrix product and the kinds of convolution; bandwidths are those of
    copies within and beyond the cache, reading and writing counted. cache: bytes of the last level to count on.
    """
    square = torch.randn(1536, 1536)
    rates = {kind: _convolution_rate(kind, seconds) for kind in ("pointwise", "grouped", "dense")}
    rates["matmul"] = _rate(2 * 1536**3, lambda: square @ square, seconds)
    peak = max(rates.values())

    def copying(elements: int) -> float:
        source, target = torch.randn(elements), torch.empty(elements)
        return _rate(8 * elements, lambda: target.copy_(source), seconds)

    tiny = torch.randn(16)
    return Machine(
        name=f"this CPU, float32, {torch.get_num_threads()} threads",
        peak=peak,
        bandwidth=copying(32_000_000),
        cache=cache,
        cache_bandwidth=copying(500_000),
        overhead=1 / _rate(1, lambda: tiny.relu(), seconds / 2) + 4e-6,
        efficiency={kind: rate / peak for kind, rate in rates.items()},
    )
