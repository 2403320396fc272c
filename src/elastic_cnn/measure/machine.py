"""What figures were measured on and with: processor, memory, versions, commit."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "elastic-cnn")
SETTINGS = ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def describe_machine() -> dict[str, Any]:
    """JSON values: processor, cores, vector extensions, memory, accelerator, versions, allocator settings."""
    flags = cpuinfo("flags").split()
    return {
        "processor": processor(),
        "cores": cores(),
        "vectors": [name for name in VECTORS if name in flags],
        "memory_gib": round(_memory() / 2**30, 1),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(PACKAGES),
        "allocator": {name: os.path.basename(os.environ[name]) for name in SETTINGS if os.environ.get(name)},
    }


def machine_line(machine: dict[str, Any]) -> str:
    """What `describe_machine` found, in one line."""
    found = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    allocator = "; allocator set by " + ", ".join(machine["allocator"]) if machine["allocator"] else ""
    device = f"{machine['accelerator']}; " if machine["accelerator"] else ""
    hardware = f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['vectors'])})"
    return f"{device}{hardware}; {found}{allocator}"


def device_line(device: torch.device) -> str:
    """The GPU, or the processor with the threads that torch uses of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''} of {os.cpu_count()}"


def processor() -> str:
    """The processor's name where the system tells it, else its kind."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_line(*others: str) -> str:
    """This package, Python, torch, timm and the packages named."""
    from elastic_cnn import __version__

    found = versions(("torch", "timm", *others))
    listed = "".join(f", {name} {version}" for name, version in found.items() if name != "python")
    return f"elastic-cnn {__version__}, Python {found['python']}{listed}"


def commit() -> str:
    """The commit of the source tree, with + where tracked files were changed; `unknown` outside of a git tree."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip() or "unknown"


def cpuinfo(key: str) -> str:
    """What /proc/cpuinfo tells of the first processor under a key; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key), ""
    )


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
