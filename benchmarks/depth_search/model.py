"""A roofline model of a network's time: a kernel takes as long as its arithmetic or its traffic, the longer one.

Operators (`trace.py`) are first joined into the kernels that would run them; a kernel then reads what comes from
outside it and writes what is used outside. Machines are described by measured peaks (`machine.py`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.depth_search.trace import FOLDED_NORM, Op

# What joins other operators: each output pixel from few input pixels.
POINTWISE = (
    *(
        "relu",
        "relu_",
        "add",
        "add_",
        "mul",
        "sigmoid",
        "silu",
        "hardtanh",
        "clamp_min",
        "sub",
        "div",
        "constant_pad_nd",
    ),
    *("upsample_bilinear2d", "upsample_nearest2d", "cat", "slice_backward", "threshold_backward", "clone"),
    *("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"),
)
POOLS = ("avg_pool2d",)
FUSIONS = ("none", "pointwise", "tail", "epilogue")


@dataclass(frozen=True)
class Machine:
    """What a device can do.

    peak: FLOP/s at best. bandwidth: bytes/s of main memory. cache: bytes that stay on the chip between kernels, moved
    at cache_bandwidth. overhead: seconds a kernel costs besides. efficiency: {kind of operator: its part of the peak}.
    """

    name: str
    peak: float
    bandwidth: float
    cache: float
    cache_bandwidth: float
    overhead: float
    efficiency: dict[str, float] = field(default_factory=dict)


@dataclass
class Kernel:
    """Operators that run as one. `place`: that of the one with the most FLOPs, of the first where none has any."""

    ops: list[Op]

    @property
    def place(self) -> str:
        return max(self.ops, key=lambda op: op.flops).place

    @property
    def computes(self) -> bool:
        """Whether it holds a convolution or matrix product."""
        return any(op.kind for op in self.ops)


def fuse(ops: Sequence[Op], fusion: str = "none") -> list[Kernel]:
    """The kernels that run `ops`.

    fusion: `none`, one operator each, as eager code; `pointwise`: neighbouring pointwise operators in one, library
    convolutions alone, norms in evaluation folded into them (a compiler on a GPU); `tail`: pooling joins, too, as with
    this package's kernels; `epilogue`: pointwise operators join the convolution before them (a compiler on a CPU).
    `ValueError` for another one.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"unknown fusion {fusion!r}; choose from {', '.join(FUSIONS)}")
    if fusion == "none":
        return [Kernel([op]) for op in ops]
    kernels: list[Kernel] = []
    made_by: dict[int, int] = {}  # tensor: the kernel that wrote it last
    for op in ops:
        writers = [made_by[tensor] for tensor in op.inputs if tensor in made_by]
        latest = max(writers, default=-1)
        joins = latest >= 0 and _joins(op, kernels[latest], fusion)
        if joins:
            kernels[latest].ops.append(op)
        else:
            latest = len(kernels)
            kernels.append(Kernel([op]))
        made_by.update(dict.fromkeys(op.outputs, latest))
    return kernels


def _joins(op: Op, kernel: Kernel, fusion: str) -> bool:
    if op.name == FOLDED_NORM:
        return True
    if op.name in POOLS:
        return fusion == "tail" and not kernel.computes
    if op.name not in POINTWISE or any(member.name in POOLS for member in kernel.ops):
        return False
    if fusion == "epilogue":
        return True
    return not any(member.kind for member in kernel.ops)


def traffic(kernels: Sequence[Kernel]) -> list[tuple[int, int]]:
    """(bytes of maps, bytes of weights) that each kernel moves: external inputs, and outputs that others read."""
    readers: dict[int, set[int]] = defaultdict(set)
    for index, kernel in enumerate(kernels):
        for op in kernel.ops:
            for tensor in op.inputs:
                readers[tensor].add(index)
    moved = []
    for index, kernel in enumerate(kernels):
        made: set[int] = set()
        maps: dict[tuple[int, bool], int] = {}
        weights: dict[int, int] = {}
        for op in kernel.ops:
            for tensor, size in op.inputs.items():
                if tensor in op.weights:
                    weights[tensor] = size
                elif tensor not in made:
                    maps[tensor, False] = max(size, maps.get((tensor, False), 0))
            for tensor, size in op.outputs.items():
                made.add(tensor)
                if readers[tensor] - {index} or not readers[tensor]:
                    maps[tensor, True] = size
        moved.append((sum(maps.values()), sum(weights.values())))
    return moved


def predict(ops: Sequence[Op], machine: Machine, fusion: str = "none") -> dict[str, float]:
    """{place: seconds}: the time that each module's own kernels take; the sum is the network's time."""
    kernels = fuse(ops, fusion)
    times: dict[str, float] = defaultdict(float)
    for kernel, (maps, weights) in zip(kernels, traffic(kernels), strict=True):
        compute = sum(op.flops / (machine.peak * machine.efficiency.get(op.kind, 1.0)) for op in kernel.ops)
        near = machine.cache_bandwidth if maps + weights < machine.cache else machine.bandwidth
        times[kernel.place] += max(compute, maps / near + weights / machine.bandwidth) + machine.overhead
    return dict(times)


def by_block(times: dict[str, float], blocks: Sequence[str]) -> dict[str, float]:
    """Times summed over the named modules; what belongs to none of them under ""."""
    summed: dict[str, float] = defaultdict(float)
    for place, seconds in times.items():
        owner = next((block for block in blocks if place == block or place.startswith(f"{block}.")), "")
        summed[owner] += seconds
    return dict(summed)
