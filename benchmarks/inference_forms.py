"""Inference time of elastic networks over their bases, both optimized (and compiled) alike, interleaved in one process.

    python benchmarks/inference_forms.py --pairs resnext50:resnext50_elastic --batch-sizes 1 8 -o inference_forms.json

Each round runs base, elastic; reported are the medians of the times and of the rounds' ratios, with the middle half of
the ratios. Modes:

    plain      as built, eager
    optimized  `optimize_for_inference` in PyTorch alone, eager
    prepacked  the same with oneDNN's fused convolutions
    compiled   compiled with the weights frozen, which takes minutes for each network and batch size
    native     the native kernels, and what they leave compiled

Allocation counts for much: the report repeats the MALLOC_* settings that the process had.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from elastic_cnn import create_model, optimize_for_inference
from elastic_cnn.files import write_json

PAIRS = (
    "resnext50:resnext50_elastic",
    "resnext50:resnext50_selastic",
    "dla60x:dla60x_elastic",
    "densenet201:densenet201_elastic",
    "se_resnext50:se_resnext50_elastic",
    "resnext101:resnext101_elastic",
)
MODES = ("plain", "optimized", "prepacked", "compiled", "native")
WARM_UP = 3
Run = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """base, other: median ms of one forward. ratio: median of the rounds' ratios, quartiles: their middle half."""

    pair: str
    mode: str
    batch_size: int
    base: float
    other: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int


def prepare(name: str, mode: str, images: Tensor) -> Run:
    """A call of the network `name` on `images` in eval mode; compiled already where the mode says so."""
    torch.manual_seed(0)
    network = create_model(name).to(images.dtype).eval()
    runner = network
    if mode != "plain":
        native, compiled = mode == "native", mode in ("compiled", "native")
        runner = optimize_for_inference(network, compile=compiled, prepack=mode == "prepacked", native=native)

    def run() -> object:
        with torch.inference_mode():
            return runner(images)

    run()
    return run


def compare(base: Run, other: Run, rounds: int) -> list[tuple[float, float]]:
    """(ms of base, ms of other) of each round, warm-up left out."""
    times = []
    for _ in range(rounds + WARM_UP):
        stamps = [time.perf_counter()]
        for run in (base, other):
            run()
            stamps.append(time.perf_counter())
        times.append((1e3 * (stamps[1] - stamps[0]), 1e3 * (stamps[2] - stamps[1])))
    return times[WARM_UP:]


def summarize(pair: str, mode: str, batch_size: int, times: Sequence[tuple[float, float]]) -> Comparison:
    """Medians and quartiles of the rounds."""
    ratios = [other / base for base, other in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    base, other = (statistics.median(column) for column in zip(*times, strict=True))
    return Comparison(pair, mode, batch_size, base, other, middle, (low, high), len(times))


def table(found: Sequence[Comparison]) -> str:
    """The comparisons as a table in Markdown."""
    lines = [
        "| base : network | mode | batch | base ms | network ms | ratio (middle half) |",
        "|---|---|---|---|---|---|",
    ]
    for c in found:
        spread = f"{c.quartiles[0]:.3f} to {c.quartiles[1]:.3f}"
        lines.append(
            f"| {c.pair} | {c.mode} | {c.batch_size} | {c.base:.1f} | {c.other:.1f} | {c.ratio:.3f} ({spread}) |"
        )
    return "\n".join(lines)


def conditions(threads: int, dtype: torch.dtype, size: int) -> dict[str, object]:
    """What the figures hold for."""
    malloc = {key: value for key, value in os.environ.items() if key.startswith("MALLOC_") or key == "LD_PRELOAD"}
    return {
        "threads": threads,
        "dtype": str(dtype).removeprefix("torch."),
        "size": size,
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "allocator": malloc,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), metavar="BASE:NETWORK")
    parser.add_argument("--modes", nargs="+", default=["compiled"], choices=MODES)
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16", "float16"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    dtype = getattr(torch, args.dtype)
    found = []
    for mode in args.modes:
        for batch_size in args.batch_sizes:
            images = torch.randn(batch_size, 3, args.size, args.size).to(dtype, memory_format=torch.channels_last)
            ready: dict[str, Run] = {}
            for pair in args.pairs:
                for name in pair.split(":"):
                    ready.setdefault(name, prepare(name, mode, images))
                base, other = (ready[name] for name in pair.split(":"))
                found.append(summarize(pair, mode, batch_size, compare(base, other, args.rounds)))
                print(table(found[-1:]).splitlines()[-1], flush=True)
            torch._dynamo.reset()
    described = conditions(args.threads, dtype, args.size)
    print(table(found), described, sep="\n")
    if args.output:
        write_json(args.output, {"conditions": described, "comparisons": [asdict(c) for c in found]})


if __name__ == "__main__":
    main()
