"""Time and memory of a training step: networks over a base, plain and in the training form, interleaved in one process.

    python benchmarks/training_step.py --base resnext50 --networks resnext50_elastic:fused resnext50_selastic:fused \
        resnext50:fused --rounds 8 -o step.json

A network is NAME or NAME:fused (`optimize_for_training`). Each round runs every one once; the first two rounds warm up
and are left out. Reported are medians and the rounds' ratios to the base, with their middle half. `--memory` measures
each network's peak resident memory in a process of its own. How memory is allocated matters as much as most code: give
every run the same MALLOC_* settings, and say which (docs/performance/training.md).
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from elastic_cnn import create_model
from elastic_cnn.fast.training import optimize_for_training
from elastic_cnn.files import write_json

WARM_UP = 2


def make_step(description: str, batch: int, size: int) -> Callable[[], None]:
    """A training step (SGD with momentum, float32, channels_last) of the network `NAME` or `NAME:fused`."""
    name, _, form = description.partition(":")
    if form not in ("", "fused"):
        raise ValueError(f"unknown form {form!r} in {description}; write NAME or NAME:fused")
    torch.manual_seed(0)
    network = create_model(name).to(memory_format=torch.channels_last).train()
    if form:
        report = optimize_for_training(network)
        print(f"{description}: {report}", flush=True)
        if report.reason:
            raise ValueError(f"{description}: {report.reason}")
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 1000, (batch,))

    def step() -> None:
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_memory(description: str, batch: int, size: int) -> float:
    """Peak resident MiB of three steps, in a process of its own."""
    command = [sys.executable, __file__, "--peak", description, "--batch", str(batch), "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def compare(steps: dict[str, Callable[[], None]], base: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median ms and ratio to `base` (median, quartiles over rounds) of each step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + WARM_UP):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - began) * 1000)
    results = {}
    for name, values in times.items():
        ratios = [own / of_base for own, of_base in zip(values[WARM_UP:], times[base][WARM_UP:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        results[name] = {
            "ms": statistics.median(values[WARM_UP:]),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="resnext50")
    parser.add_argument("--networks", nargs="+", default=["resnext50_elastic:fused", "resnext50_selastic:fused"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--memory", action="store_true", help="measure peak memory as well")
    parser.add_argument("--peak", metavar="NETWORK", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        step = make_step(args.peak, args.batch, args.size)
        for _ in range(3):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    names = [args.base, *args.networks]
    results = compare({name: make_step(name, args.batch, args.size) for name in names}, args.base, args.rounds)
    for name, result in results.items():
        if args.memory:
            result["peak_mib"] = peak_memory(name, args.batch, args.size)
        memory = f"  {result['peak_mib']:7.0f} MiB" if args.memory else ""
        spread = f"({result['ratio_low']:.3f} to {result['ratio_high']:.3f})"
        print(f"{name:28} {result['ms']:8.0f} ms  {result['ratio']:.3f} {spread}{memory}", flush=True)
    if args.out:
        setting = {name: value for name, value in os.environ.items() if name.startswith(("MALLOC_", "OMP_"))}
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        write_json(args.out, {**vars(args), **machine, "environment": setting, "results": results})


if __name__ == "__main__":
    main()
