"""What makes networks fast or slow on this machine: kernels, instruction sets, threads, allocator, GPU, extras."""

import importlib.util
import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.kernels import build, native, ops
from elastic_cnn.measure import machine

EXTRAS = {  # extra: packages that it brings
    "train": ("lightning", "torchmetrics", "tensorboard", "tqdm"),
    "figures": ("matplotlib", "pyarrow", "sklearn", "scipy"),
    "data": ("webdataset", "datasets", "simplejpeg", "tifffile"),
    "seg": ("segmentation_models_pytorch", "scipy"),
    "export": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "serve": ("starlette", "uvicorn", "python_multipart"),
}
KERNELS = "native kernels"  # how the topics about them begin
ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. ok: nothing to gain here; advice: what would help, empty where there is nothing."""

    topic: str
    text: str
    ok: bool = True
    advice: str = ""


def diagnose() -> list[Finding]:
    """Look at this process and this machine; loads the kernels, compiling them where there are none."""
    return [
        *_kernels(),
        _compiler(),
        _processor(),
        _threads(),
        _allocator(),
        Finding("torch", f"{torch.__version__}, CPU capability {torch.backends.cpu.get_cpu_capability()}"),
        _gpu(),
        *_extras(),
    ]


def as_dict(findings: list[Finding]) -> dict[str, Any]:
    """For JSON: versions and the findings."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel_level": native.level(),
        "findings": [asdict(finding) for finding in findings],
    }


def _kernels() -> list[Finding]:
    inference = native.load("inference")
    if not inference:
        text = f"the plain PyTorch forms serve: {inference.reason}"
        advice = "install a C++ compiler (g++) and run `elastic doctor` again" if not build.compiler() else ""
        return [Finding(KERNELS, text, False, advice)]
    if not ops.ready():
        text = "the plain PyTorch forms serve: this processor has neither AVX-512 nor AVX2"
        return [Finding(KERNELS, text, False)]
    wish = os.environ.get("ELASTIC_KERNELS_ISA")
    why = f"asked for by ELASTIC_KERNELS_ISA={wish}" if wish else "the widest that this processor has"
    text = f"{native.level()} ({why}); {inference.reason}: {inference.path}"
    training = native.load("training")
    bf16 = ", bfloat16 too" if training and torch.ops.elastic_cnn.train_bf16_level() else ""
    told = (
        f"{training.reason}{bf16}: {training.path}"
        if training
        else f"blocks train in the plain form: {training.reason}"
    )
    return [
        Finding(f"{KERNELS}, inference", text),
        _bfloat16(),
        Finding(f"{KERNELS}, training", told, bool(training)),
    ]


def _bfloat16() -> Finding:
    topic, part = f"{KERNELS}, bfloat16", native.load("bf16")
    if not part:
        return Finding(topic, f"PyTorch's forms serve: {part.reason}", False)
    if not ops.ready(torch.bfloat16):
        return Finding(topic, "this processor has no AVX-512 BF16: float32 is the faster choice on it")
    return Finding(topic, f"{native.level(torch.bfloat16)}; {part.reason}: {part.path}")


def _compiler() -> Finding:
    found = build.compiler()
    if not found:
        return Finding("compiler", "none found", False, "install g++, or set CXX, to compile kernels on first use")
    return Finding("compiler", found)


def _processor() -> Finding:
    known = machine.cpuinfo("flags").split()
    levels = [name for name in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if name in known]
    text = f"{machine.processor()}, {', '.join(levels) or 'no AVX2'}"
    return Finding("processor", text, "avx2" in levels)


def _threads() -> Finding:
    available = machine.cores()
    quota, used = _cpu_quota(), torch.get_num_threads()
    text = f"{used} of torch's on {available} processors"
    if quota and quota < available:
        text += f", of which this container may use {quota:g}"
    usable = min(available, quota) if quota else available
    if used > usable:
        return Finding(
            "threads", text, False, f"set OMP_NUM_THREADS={max(1, int(usable))}: threads that wait by spinning"
        )
    return Finding("threads", text)


def _cpu_quota() -> float:
    """Processors that the control group allows; 0 where it sets no limit."""
    fields = " ".join(_lines("/sys/fs/cgroup/cpu.max")).split()
    return float(fields[0]) / float(fields[1]) if len(fields) == 2 and fields[0] != "max" else 0.0


def _allocator() -> Finding:
    maps = " ".join(_lines("/proc/self/maps"))
    loaded = [name for name in ALLOCATORS if re.search(rf"lib{name}", maps)]
    if loaded:
        return Finding("allocator", loaded[0])
    kept = int(os.environ.get("MALLOC_TRIM_THRESHOLD_", "0") or 0) >= 1 << 30
    if kept:
        return Finding("allocator", "the system's, told to keep its memory (MALLOC_TRIM_THRESHOLD_)")
    advice = "preload tcmalloc (LD_PRELOAD=libtcmalloc.so.4), or set MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_"
    text = "the system's, which gives large maps back and fetches fresh pages for the next"
    return Finding("allocator", text, False, advice)


def _gpu() -> Finding:
    triton = machine.versions(("triton",)).get("triton")
    kernels = f"Triton {triton}" if triton else "no Triton"
    if not torch.cuda.is_available():
        built = "this torch has CUDA, but no GPU is seen" if torch.version.cuda else "this torch has no CUDA"
        return Finding("GPU", f"none ({built}); {kernels}")
    return Finding("GPU", f"{torch.cuda.get_device_name()}; {kernels}", bool(triton))


def _extras() -> list[Finding]:
    findings = []
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            text = f"missing {', '.join(missing)}"
            findings.append(Finding(f"extra {extra}", text, False, f'pip install "elastic-cnn[{extra}]"'))
        else:
            findings.append(Finding(f"extra {extra}", "installed"))
    return findings


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
