"""Native kernels against the base in the same kernels and against OpenVINO's base, with the machine's own limits.

    python benchmarks/native_kernels.py [--seconds 20] [--threads 2] [--size 224] [--batch 1] [--json FILE]

Networks run interleaved in one process, one image batch each in turn; figures are medians, ratios are medians of the
ratios within a turn, with the quartiles beside them. OpenVINO's threads spin, so it runs in a process of its own,
before and after. The limits: multiply-adds in registers, and bytes read from memory, a second, on the same threads.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

BASE = "resnext50"
NETWORKS = (BASE, "resnext50_elastic", "resnext50_selastic")
PEAK_SOURCE = r"""
#include <immintrin.h>
#include <omp.h>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>
static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
#ifdef __AVX512F__
typedef __m512 V;
#define FMA(r) asm volatile("vfmadd213ps %2,%1,%0" : "+v"(r) : "v"(x), "v"(y));
static V one(float v) { return _mm512_set1_ps(v); }
#else
typedef __m256 V;
#define FMA(r) asm volatile("vfmadd213ps %2,%1,%0" : "+x"(r) : "x"(x), "x"(y));
static V one(float v) { return _mm256_set1_ps(v); }
#endif
int main(int, char** argv) {
  const int threads = std::atoi(argv[1]);
  double peak = 0, bandwidth = 0;
  std::vector<float> memory(1 << 27, 1.f);  // 512 MB
  for (int turn = 0; turn < 5; turn++) {
    double start = now();
    const long steps = 5000000;
#pragma omp parallel num_threads(threads)
    {
      V x = one(0.999f), y = one(0.001f), a = x, b = x, c = x, d = x, e = x, f = x, g = x, h = x, i = x, j = x;
      for (long k = 0; k < steps; k++) { FMA(a) FMA(b) FMA(c) FMA(d) FMA(e) FMA(f) FMA(g) FMA(h) FMA(i) FMA(j) }
      volatile float keep = ((float*)&a)[0] + ((float*)&b)[0] + ((float*)&c)[0] + ((float*)&d)[0] + ((float*)&e)[0] +
                            ((float*)&f)[0] + ((float*)&g)[0] + ((float*)&h)[0] + ((float*)&i)[0] + ((float*)&j)[0];
      (void)keep;
    }
    double rate = 2.0 * sizeof(V) / 4 * 10 * steps * threads / (now() - start) / 1e9;
    if (rate > peak) peak = rate;
    start = now();
    float total = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : total) schedule(static)
    for (long k = 0; k < (1L << 27); k += 16) total += memory[k];
    rate = 4.0 * (1L << 27) / (now() - start) / 1e9;
    if (rate > bandwidth && total > 0) bandwidth = rate;
  }
  std::printf("%f %f\n", peak, bandwidth);
}
"""


def machine_limits(threads: int) -> tuple[float, float]:
    """(GFLOP/s of multiply-adds in registers, GB/s read), measured with a program compiled here."""
    from elastic_cnn.kernels import build, native

    flags = [*build.LEVELS[native.level()], "-O2", "-fopenmp"]
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "peak.cpp"), Path(folder, "peak")
        source.write_text(PEAK_SOURCE)
        subprocess.run([build.compiler(), *flags, str(source), "-o", str(program)], check=True)
        done = subprocess.run([str(program), str(threads)], check=True, capture_output=True, text=True)
    flops, bandwidth = map(float, done.stdout.split())
    return flops, bandwidth


def openvino_seconds(path: Path, size: int, batch: int, threads: int, seconds: float) -> list[float]:
    """Latencies of an OpenVINO network in this process."""
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(str(path), "CPU", hints).create_infer_request()
    x = np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)
    return timed(lambda: request.infer([x]), seconds)


def timed(call, seconds: float) -> list[float]:
    for _ in range(5):
        call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def save_for_openvino(path: Path, size: int, batch: int) -> None:
    """The base, as timm builds it, in OpenVINO's format; OpenVINO folds norms itself."""
    import openvino

    import elastic_cnn

    x = torch.randn(batch, 3, size, size)
    model = openvino.convert_model(elastic_cnn.create_model(BASE).eval(), example_input=x)
    model.reshape(list(x.shape))
    openvino.save_model(model, path, compress_to_fp16=False)


def in_own_process(path: Path, args: argparse.Namespace) -> list[float]:
    command = [sys.executable, __file__, "--openvino", str(path), "--size", str(args.size), "--batch", str(args.batch)]
    command += ["--threads", str(args.threads), "--seconds", str(args.seconds / 4)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def native_times(args: argparse.Namespace) -> dict[str, list[float]]:
    import elastic_cnn
    from elastic_cnn.fast import optimize_for_inference

    torch.set_num_threads(args.threads)
    x = torch.randn(args.batch, 3, args.size, args.size)
    networks = {n: optimize_for_inference(elastic_cnn.create_model(n).eval(), native=True) for n in NETWORKS}
    times: dict[str, list[float]] = {name: [] for name in NETWORKS}
    with torch.no_grad():
        for network in networks.values():
            for _ in range(5):
                network(x)
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end:
            for name, network in networks.items():
                start = time.perf_counter()
                network(x)
                times[name].append(time.perf_counter() - start)
    return times


def flops_of(name: str, size: int) -> float:
    import elastic_cnn
    from elastic_cnn.nn.complexity import count

    return 2.0 * count(elastic_cnn.create_model(name).eval(), (3, size, size)).macs


def quartiles(values: list[float]) -> list[float]:
    return [float(q) for q in np.percentile(values, (25, 50, 75))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for OpenVINO's file of the base, made once")
    parser.add_argument("--openvino", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.openvino:
        print(json.dumps(openvino_seconds(args.openvino, args.size, args.batch, args.threads, args.seconds)))
        return
    folder = args.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{BASE}_{args.size}_{args.batch}.xml"
    if not path.exists():
        save_for_openvino(path, args.size, args.batch)
    report = measure(path, args)
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(path: Path, args: argparse.Namespace) -> dict:
    peak, bandwidth = machine_limits(args.threads)
    first = in_own_process(path, args)
    times = native_times(args)
    second = in_own_process(path, args)
    openvino = statistics.median(first + second)
    networks = {}
    for name, values in times.items():
        flops = flops_of(name, args.size) * args.batch
        median = statistics.median(values)
        networks[name] = {
            "ms": [1e3 * q for q in quartiles(values)],
            "of_native_base": quartiles([a / b for a, b in zip(values, times[BASE], strict=True)]),
            "of_openvino_base": median / openvino,
            "gflop": flops / 1e9,
            "part_of_peak": flops / median / 1e9 / peak,
        }
    return {
        "torch": torch.__version__,
        "threads": args.threads,
        "size": args.size,
        "batch": args.batch,
        "dtype": "float32",
        "peak_gflops": peak,
        "read_gb_per_s": bandwidth,
        "openvino_base_ms": {"before": 1e3 * statistics.median(first), "after": 1e3 * statistics.median(second)},
        "turns": len(times[BASE]),
        "networks": networks,
    }


def print_report(report: dict) -> None:
    print(
        f"float32, batch {report['batch']}, {report['size']} pixels, {report['threads']} threads, "
        f"torch {report['torch']}; {report['turns']} turns"
    )
    print(f"limits: {report['peak_gflops']:.0f} GFLOP/s in registers, {report['read_gb_per_s']:.1f} GB/s read")
    openvino = report["openvino_base_ms"]
    print(f"OpenVINO's {BASE}: {openvino['before']:.1f} ms before, {openvino['after']:.1f} ms after")
    for name, row in report["networks"].items():
        low, middle, high = row["of_native_base"]
        print(
            f"{name:20} {row['ms'][1]:6.1f} ms   {middle:.3f} ({low:.3f}..{high:.3f}) of the native base"
            f"   {row['of_openvino_base']:.3f} of OpenVINO's   {100 * row['part_of_peak']:.0f}% of the peak"
        )


if __name__ == "__main__":
    main()
