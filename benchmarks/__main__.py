"""`python -m benchmarks [--quick] [-o FOLDER]`: the standing set, one after the other, each in a process of its own.

Every network of the paper beside its base in all forms (`elastic benchmark`), then the scripts of this folder. Results
land in FOLDER (default: runs/benchmarks), a JSON file each; one that exists is measured anew. A benchmark that fails is
reported at the end, the others run on. Let nothing else run meanwhile: the whole set takes hours, most of it compiling;
`--quick` times the eager, optimized and native forms at batch 1 alone, in minutes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAIRS = (
    ("resnext50_elastic", "resnext50"),
    ("resnext50_selastic", "resnext50"),
    ("dla60x_elastic", "dla60x"),
    ("densenet201_elastic", "densenet201"),
    ("se_resnext50_elastic", "se_resnext50"),
    ("resnext101_elastic", "resnext101"),
)
QUICK = ("--forms", "eager,optimized,native", "--batch-sizes", "1", "--rounds", "5")
WHOLE = ("--train-batch-sizes", "16", "--roofline", "--breakdown", "--memory")
SCRIPTS = ("coco_loading.py", "explorer_bench.py")


def standing_set(folder: Path, quick: bool) -> list[tuple[str, list[str]]]:
    """(title, command) of every benchmark."""
    commands = []
    for network, base in PAIRS:
        out = ["-o", str(folder / f"{network}.json"), "--overwrite"]
        arguments = [network, "--against", base, *(QUICK if quick else WHOLE), *out]
        commands.append((f"{network} beside {base}", [sys.executable, "-m", "elastic_cnn", "benchmark", *arguments]))
    commands += [(name, [sys.executable, str(HERE / name)]) for name in SCRIPTS if not quick]
    if not quick and _has_gpu():
        commands.append(("gpu.py", [sys.executable, str(HERE / "gpu.py"), "-o", str(folder / "gpu.json")]))
    return commands


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> int:
    """Run the set; the exit code is 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"), metavar="FOLDER")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for title, command in standing_set(args.out, args.quick):
        print(f"== {title}", flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(title)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
