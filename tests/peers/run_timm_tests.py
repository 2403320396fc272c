"""Run timm's own tests on the networks of this package.

    python tests/peers/run_timm_tests.py [--networks 'resnext*,dla60x'] [--cache FOLDER] [-- PYTEST ARGUMENTS]

Fetches the source distribution of the installed timm by pip, unpacks its tests into a cache folder outside the
checkout, and runs them with the plugin beside this file, which puts our networks in place of timm's. Prints how many
tests passed, failed and were skipped, and why. The exit code is pytest's: 0 when none failed.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import timm

HERE = Path(__file__).resolve().parent
FILES = ("test_models.py", "test_prune.py", "test_model_input.py", "test_input_conv.py")


def cache_folder() -> Path:
    """The user's cache folder: timm's code must not come near the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elastic-cnn" / "peers"


def fetch(cache: Path) -> Path:
    """The folder of timm's unpacked source distribution: its tests and pytest settings, but not the package itself,
    which would hide the installed one."""
    name = f"timm-{timm.__version__}"
    folder = cache / name
    if (folder / "tests").is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f"{name}.tar.gz"
    if not archive.is_file():
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "timm", "--dest", str(cache)]
        subprocess.run([*download, f"timm=={timm.__version__}"], check=True)
    with tarfile.open(archive) as tar:
        wanted = [m for m in tar if m.name.startswith(f"{name}/tests/") or m.name == f"{name}/pyproject.toml"]
        tar.extractall(cache, wanted, filter="data")
    return folder


def run(folder: Path, networks: str, report: Path, extra: list[str]) -> int:
    """Run the tests in `folder`; the outcome goes to the JUnit file `report`. Returns pytest's exit code."""
    paths = [str(Path("tests") / name) for name in FILES]
    settings = [
        "-p",
        "timm_plugin",
        "-p",
        "no:timeout",
        "-p",
        "no:cacheprovider",
        "-o",
        "tmp_path_retention_policy=none",
    ]
    command = [sys.executable, "-m", "pytest", *settings, *paths, "-q", "--tb=short", f"--junitxml={report}", *extra]
    search = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search, "ELASTIC_NETWORKS": networks}
    return subprocess.run(command, cwd=folder, env=environment).returncode


def summarize(report: Path) -> str:
    """Counts by outcome, the failures by name, and the reasons for skipping."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failures = []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
            failures.append(f"{case.get('classname')}.{case.get('name')}")
        elif skipped is not None:
            counts["skipped"] += 1
            reasons[skipped.get("message") or "no reason given"] += 1
        else:
            counts["passed"] += 1
    lines = [f"timm {timm.__version__}: {', '.join(f'{counts[k]} {k}' for k in ('passed', 'failed', 'skipped'))}"]
    lines += [f"  failed: {name}" for name in failures]
    lines += [f"  skipped {count}: {reason}" for reason, count in reasons.items()]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run timm's own tests on the networks of this package.")
    parser.add_argument("--networks", default="*", help="patterns of our networks' names, by commas (all)")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="where timm's tests are kept")
    parser.add_argument("pytest", nargs="*", help="further arguments for pytest, after --")
    args = parser.parse_args()
    folder = fetch(args.cache.resolve())
    report = folder / f"report-{os.getpid()}.xml"
    code = run(folder, args.networks, report, args.pytest)
    if report.is_file():
        print(summarize(report))
        report.unlink()
    return code


if __name__ == "__main__":
    sys.exit(main())
