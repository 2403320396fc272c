"""The Triton kernels in Triton's interpreter on the CPU, and compiled for GPUs that are not there."""

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
    """All of `triton_cases.py`, in a process in which Triton interprets."""
    cases = ["-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(HERE / "triton_cases.py")]
    done = run(cases, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
