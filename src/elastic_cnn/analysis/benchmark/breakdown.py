"""Where the time of an eager network goes, by kind of operation, seen by torch's profiler."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from elastic_cnn.analysis.benchmark.forms import Subject, prepare
from elastic_cnn.analysis.benchmark.measure import Request

REPEATS = 5
OTHERS = (  # part of the operator's name -> kind; the first that fits
    ("batch_norm", "batch norm"),
    ("relu", "ReLU"),
    ("threshold", "ReLU"),
    ("clamp", "ReLU"),
    ("upsample", "upsampling"),
    ("avg_pool", "average pooling"),
    ("mean", "average pooling"),
    ("max_pool", "max pooling"),
    ("cat", "concatenation"),
    ("add", "sums"),
    ("mul", "products"),
    ("addmm", "linear"),
    ("mm", "linear"),
)


def breakdown(run: Callable[[], object]) -> list[tuple[str, float]]:
    """(kind, milliseconds a call), longest first. `run`: one call; it is made `REPEATS` times after a warm-up."""
    for _ in range(2):
        run()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiler:
        for _ in range(REPEATS):
            run()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages(group_by_input_shape=True):
        spent[_kind(event.key, event.input_shapes)] += event.self_cpu_time_total / 1e3 / REPEATS
    return sorted(spent.items(), key=lambda item: -item[1])


def break_down(request: Request) -> list[dict[str, Any]]:
    """Where the time of each network's eager form goes, for each job and batch of a request, in this process with its
    largest number of threads: JSON values `network`, `job`, `batch`, `parts` ([kind, ms])."""
    torch.set_num_threads(max(request.threads))
    found = []
    for (job, batch), network in itertools.product(request.jobs, request.networks):
        run = prepare(Subject(network, "eager", job, batch, request.size, request.dtypes[0]))
        found.append({"network": network, "job": job, "batch": batch, "parts": breakdown(run)})
    return found


def _kind(name: str, shapes: Any) -> str:
    name = name.removeprefix("aten::")
    if "conv" in name:
        return _convolution(name, shapes)
    if name.startswith("_foreach") or "Optimizer" in name:
        return "optimizer"
    return next((kind for part, kind in OTHERS if part in name), "other")


def _convolution(name: str, shapes: Any) -> str:
    """1x1, dense or grouped, forward or backward; from the shapes of input `(N, C, H, W)` and weight."""
    maps = [shape for shape in shapes if len(shape) == 4]
    backward = "backward" in name
    if len(maps) < 2 + backward:
        return "convolutions, other"
    images, weight = maps[backward : 2 + backward]
    kind = "1x1" if weight[2:] == [1, 1] else f"{weight[2]}x{weight[3]}"
    grouped = "grouped " if images[1] != weight[1] else ""
    return f"{grouped}{kind} convolutions{', backward' if backward else ''}"


def format_breakdown(title: str, parts: list[tuple[str, float]]) -> str:
    """Kinds with milliseconds and per cent; what is below half a per cent together."""
    total = sum(value for _, value in parts)
    shown = [(kind, value) for kind, value in parts if value >= 0.005 * total and kind != "other"]
    shown.append(("other", total - sum(value for _, value in shown)))
    width = max(len(kind) for kind, _ in shown)
    lines = [f"  {kind:<{width}}  {value:8.1f} ms  {100 * value / total:5.1f}%" for kind, value in shown]
    return "\n".join([f"{title}: {total:.1f} ms", *lines])
