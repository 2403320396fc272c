"""Time of elastic networks over their bases: inference and training step, both sides in one process, interleaved.

    python benchmarks/networks.py --batch-sizes 1 8 --train-batch 8 -o networks.json

Each round runs base, elastic, base, elastic, ...; reported are the medians of the times and of the rounds' ratios, with
the middle half of the ratios. Warm-up rounds are left out.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn import create_model
from elastic_cnn.files import write_json

PAIRS = (
    ("resnext50", "resnext50_elastic"),
    ("resnext50", "resnext50_selastic"),
    ("dla60x", "dla60x_elastic"),
    ("densenet201", "densenet201_elastic"),
    ("resnext_small", "resnext_small_elastic"),
)
WARM_UP = 2


def inference(network: nn.Module, images: Tensor) -> Callable[[], None]:
    network.eval()

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def training_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-6, momentum=0.9)
    targets = torch.zeros(len(images), dtype=torch.long)

    def run() -> None:
        F.cross_entropy(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


def compare(base: Callable[[], None], other: Callable[[], None], rounds: int) -> dict[str, float]:
    """Medians in ms, and the median and quartiles of the rounds' ratios other / base."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + WARM_UP):
        stamps = [time.perf_counter()]
        for run in (base, other):
            run()
            stamps.append(time.perf_counter())
        times.append((stamps[1] - stamps[0], stamps[2] - stamps[1]))
    times = times[WARM_UP:]
    ratios = [b / a for a, b in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "base_ms": round(1e3 * statistics.median(a for a, _ in times), 1),
        "elastic_ms": round(1e3 * statistics.median(b for _, b in times), 1),
        "ratio": round(middle, 3),
        "ratio_low": round(low, 3),
        "ratio_high": round(high, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="inference (default: 1 8)")
    parser.add_argument("--train-batch", type=int, default=8, help="training step; 0 leaves it out (default: 8)")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--out", help="also write JSON there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = {**vars(args), "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    print(f"float32, channels_last, eager, {args.threads} threads, input {args.size}, {args.rounds} rounds")
    rows = []
    for names in PAIRS:
        networks = [create_model(name).to(memory_format=torch.channels_last) for name in names]
        jobs = [("inference", inference, size) for size in args.batch_sizes]
        jobs += [("training step", training_step, args.train_batch)] if args.train_batch else []
        for job, prepare, batch in jobs:
            images = torch.randn(batch, 3, args.size, args.size).contiguous(memory_format=torch.channels_last)
            figures = compare(*(prepare(network, images) for network in networks), args.rounds)
            rows.append({"base": names[0], "elastic": names[1], "job": job, "batch": batch, **figures})
            spread = f"{figures['ratio_low']:.2f} to {figures['ratio_high']:.2f}"
            print(
                f"{names[1]:24} {job:14} b{batch:<3} {figures['base_ms']:8.1f} ms -> {figures['elastic_ms']:8.1f} ms"
                f"   ratio {figures['ratio']:.2f} ({spread})",
                flush=True,
            )
    if args.out:
        write_json(Path(args.out), {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
