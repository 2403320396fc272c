"""The Triton kernels in Triton's interpreter on the CPU, and compiled for GPUs that are not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE.parents[1],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_kernels_equal_plain_pytorch_in_the_interpreter():
    """All of `triton_cases.py` and `triton_network_cases.py`, in a process in which Triton interprets."""
    files = [str(HERE / name) for name in ("triton_cases.py", "triton_network_cases.py")]
    quiet = ["-W", "ignore:Conversion of an array with ndim:DeprecationWarning"]  # by older releases of Triton
    cases = ["-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *quiet, *files]
    done = run(cases, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_kernels_compile_for_gpus(tmp_path):
    """For A100 and H100, on any machine: 128-bit loads throughout, and nothing spills out of the registers."""
    done = run([str(HERE / "triton_compile.py"), "80", "90"], TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) == 2 * 7
    for kernel in kernels:
        assert kernel["loads"] == kernel["wide_loads"] > 0, kernel
        assert kernel["STACK"] == kernel["LOCAL"] == 0, kernel
        assert kernel["REG"] <= 168, kernel  # three blocks of 128 threads on a multiprocessor of 65,536 registers
