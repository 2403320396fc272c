"""Tests again in a process whose kernels are told to use AVX2: the instruction set is chosen once a process."""

import os
import subprocess
import sys


def pytest_on_avx2(*arguments: str) -> str:
    """What pytest printed; an assertion fails where a test did."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", *arguments],
        env={**os.environ, "ELASTIC_KERNELS_ISA": "avx2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout
