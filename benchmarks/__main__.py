"""`python -m benchmarks`: the standing set, one after the other, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

STANDING = ("networks.py", "coco_loading.py", "explorer_bench.py")

if __name__ == "__main__":
    for name in STANDING:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(name)), *sys.argv[1:]], check=True)
