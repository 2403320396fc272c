"""Whether the kernels' sources compile for 64-bit ARM, where the package falls back to the plain form: syntax alone.

    python tests/kernels/aarch64.py     (needs aarch64-linux-gnu-g++: Debian's g++-aarch64-linux-gnu)

Sources of one instruction set (`*_simd.cpp`) are for x86-64 alone and left out, as the build leaves them out there.
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from elastic_cnn.kernels import build

COMPILER = "aarch64-linux-gnu-g++"


def check(job: tuple[Path, list[str]]) -> str:
    """What the compiler says of a source; empty where it says nothing."""
    source, flags = job
    command = [COMPILER, *flags, "-fsyntax-only", "-Wall", "-Werror", str(source)]
    done = subprocess.run(command, cwd=build.SOURCES, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def main() -> int:
    if not shutil.which(COMPILER):
        print(f"not checked for aarch64: no {COMPILER} here (apt-get install g++-aarch64-linux-gnu)")
        return 0
    jobs = {str(source): (source, flags) for part in build.PARTS for source, flags in build.compilations(part)}
    jobs = {name: job for name, job in jobs.items() if not job[0].stem.endswith("_simd")}
    with ThreadPoolExecutor(max_workers=2) as pool:
        faults = [fault for fault in pool.map(check, jobs.values()) if fault]
    print("\n".join(faults) or f"{len(jobs)} sources of the kernels compile for aarch64")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
