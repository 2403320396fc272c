"""Everything to be measured on a GPU, in one run: are the kernels right there, and how fast are the networks?

    python benchmarks/gpu.py -o gpu.json                 on a machine with an NVIDIA GPU (about half an hour)
    python benchmarks/gpu.py -o smoke.json --smoke       the same path with small networks on the CPU

Networks: a base, its elastic form of the same depths (sElastic), the time-matched and the paper's Elastic. Inference
and training, each batch size, in bfloat16 and channels_last; forms interleaved, medians, ratios to the base in the same
form and to the compiled base. As of this writing it has run in smoke mode alone: no GPU was at hand.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_correctness import check_kernels, check_network
from torch import Tensor

from elastic_cnn import create_model
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.fast.gpu import use_gpu_kernels
from elastic_cnn.files import write_json
from elastic_cnn.kernels.triton import serves
from elastic_cnn.measure.machine import describe_machine
from elastic_cnn.measure.medians import ratio_of
from elastic_cnn.measure.turns import in_turns

NETWORKS = ("resnext50", "resnext50_selastic", "resnext50_elastic_fast", "resnext50_elastic")
SMOKE_NETWORKS = ("resnext_small", "resnext_small_elastic_fast")
Run = Callable[[], object]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the CPU: does everything run?")
    parser.add_argument("--networks", nargs="+", help="names; the first is the base")
    parser.add_argument("--batches", nargs="+", type=int, help="batch sizes (default 1 256)")
    parser.add_argument("--size", type=int, help="height and width of the images (default 224)")
    parser.add_argument("--rounds", type=int, help="times that each form is timed (default 15)")
    options = parser.parse_args(arguments)
    if not options.smoke and not torch.cuda.is_available():
        parser.error("no CUDA device here; --smoke runs the same path on the CPU with tiny networks")
    small = options.smoke
    options.device = torch.device("cpu" if small else "cuda")
    options.dtype = torch.float32 if small else torch.bfloat16
    options.networks = options.networks or list(SMOKE_NETWORKS if small else NETWORKS)
    options.batches = options.batches or ([2] if small else [1, 256])
    options.size = options.size or (32 if small else 224)
    options.rounds = options.rounds or (2 if small else 15)
    options.arguments = {"layers": (1, 2, 2, 1)} if small else {}
    options.backend = "aot_eager" if small else "inductor"  # the CPU's compiler takes minutes and shows nothing here
    return options


# --- forms to be timed -----------------------------------------------------------------------------------------------


def capture(run: Run, options: argparse.Namespace) -> Run:
    """`run` as a CUDA graph; on the CPU `run` itself."""
    if options.device.type != "cuda":
        return run
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def inference_forms(name: str, batch: int, options: argparse.Namespace) -> dict[str, Run]:
    """{form: a call of one forward pass}."""
    network = (
        create_model(name, **options.arguments)
        .eval()
        .to(options.device, options.dtype)
        .to(memory_format=torch.channels_last)
    )
    fast = optimize_for_inference(network, native=False)
    x = torch.randn(batch, 3, options.size, options.size, device=options.device, dtype=options.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(network, backend=options.backend, dynamic=False)
    compiled_fast = torch.compile(fast, backend=options.backend, dynamic=False)

    def call(module: Callable[[Tensor], Tensor]) -> Run:
        def run() -> Tensor:
            with torch.no_grad():
                return module(x)

        run()
        return run

    forms = {
        "eager": call(network),
        "kernels": call(fast),
        "compiled": call(compiled),
        "compiled kernels": call(compiled_fast),
    }
    forms["graph"] = capture(forms["compiled"], options)
    forms["graph kernels"] = capture(forms["compiled kernels"], options)
    return forms


def training_forms(name: str, batch: int, options: argparse.Namespace) -> dict[str, Run]:
    """{form: a call of one step: forward, backward, SGD}."""
    x = torch.randn(batch, 3, options.size, options.size, device=options.device, dtype=options.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    target = torch.zeros(batch, dtype=torch.long, device=options.device)

    def step(kernels: bool, compiled: bool) -> Run:
        network = (
            create_model(name, **options.arguments)
            .train()
            .to(options.device, options.dtype)
            .to(memory_format=torch.channels_last)
        )
        if kernels:
            use_gpu_kernels(network)
        module = torch.compile(network, backend=options.backend, dynamic=False) if compiled else network
        optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(module(x).float(), target).backward()
            optimizer.step()

        run()
        return run

    return {
        "eager": step(False, False),
        "kernels": step(True, False),
        "compiled": step(False, True),
        "compiled kernels": step(True, True),
    }


# --- timing --------------------------------------------------------------------------------------------------------


def seconds(run: Run, options: argparse.Namespace) -> float:
    """Of one call: enough calls for 20 ms, between two events on the device."""
    if options.device.type != "cuda":
        began = time.perf_counter()
        run()
        return time.perf_counter() - began
    calls, elapsed = 1, 0.0
    while True:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            run()
        stop.record()
        torch.cuda.synchronize()
        elapsed = start.elapsed_time(stop) / 1e3
        if elapsed > 0.02 or calls >= 512:
            return elapsed / calls
        calls *= 2


def peak_memory(run: Run, options: argparse.Namespace) -> int | None:
    """Bytes above what is held already, None on the CPU."""
    if options.device.type != "cuda":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - held


def measure(task: str, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All networks and forms of one task and batch size, each beside the base in its form and the compiled base."""
    make = inference_forms if task == "inference" else training_forms
    runs = {(name, form): run for name in options.networks for form, run in make(name, batch, options).items()}
    memory = {key: peak_memory(run, options) for key, run in runs.items() if not key[1].startswith("graph")}
    timers = [partial(seconds, run, options) for run in runs.values()]
    times = dict(zip(runs, in_turns(timers, options.rounds, warm_up=0, reverse=True), strict=True))
    base = options.networks[0]
    rows = []
    for (name, form), values in times.items():
        rows.append(
            {
                "task": task,
                "batch": batch,
                "network": name,
                "form": form,
                "milliseconds": 1e3 * statistics.median(values),
                "of_base_in_this_form": asdict(ratio_of(values, times[base, form])),
                "of_compiled_base": asdict(ratio_of(values, times[base, "compiled"])),
                "peak_bytes": memory.get((name, form)),
            }
        )
    gc.collect()
    torch._dynamo.reset()
    if options.device.type == "cuda":
        torch.cuda.empty_cache()
    return rows


def describe_device(options: argparse.Namespace) -> dict[str, Any]:
    """Names and versions, and the bandwidth of a large copy."""
    facts: dict[str, Any] = {
        "machine": describe_machine(),
        "torch": torch.__version__,
        "smoke": options.smoke,
        "dtype": str(options.dtype),
        "device": "cpu",
    }
    if options.device.type == "cuda":
        import triton

        source = torch.empty(2**28, device=options.device, dtype=torch.uint8)
        target = torch.empty_like(source)
        copying = statistics.median(seconds(lambda: target.copy_(source), options) for _ in range(5))
        facts |= {
            "device": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "triton": triton.__version__,
            "bytes_per_second": 2 * source.numel() / copying,
        }
    facts["kernels_serve"] = serves(torch.empty(1, 1, 2, 2, device=options.device, dtype=options.dtype))
    return facts


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    result: dict[str, Any] = {"device": describe_device(options)}
    print(json.dumps(result["device"]))
    result["kernels"] = check_kernels(options)
    result["networks"] = [check_network(name, options) for name in options.networks]
    wrong = [entry for entry in (*result["kernels"], *result["networks"]) if not entry["ok"]]
    print(f"correctness: {len(wrong)} wrong of {len(result['kernels'])} cases and {len(result['networks'])} networks")
    for entry in wrong:
        print(f"  WRONG: {entry}")
    result["times"] = []
    for task in ("inference", "training"):
        for batch in options.batches:
            if task == "training" and batch == 1:
                continue
            for row in measure(task, batch, options):
                result["times"].append(row)
                base, compiled = row["of_base_in_this_form"], row["of_compiled_base"]
                print(
                    f"{task:9} b{batch:<4} {row['network']:28} {row['form']:17} {row['milliseconds']:9.3f} ms"
                    f"  base, same form {base['median']:.3f} ({base['low']:.3f}..{base['high']:.3f})"
                    f"  compiled base {compiled['median']:.3f}"
                )
            write_json(options.output, result)  # what is measured is kept, whatever comes later
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
