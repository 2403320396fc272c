"""`benchmarks/gpu.py` runs its whole path on the CPU, so that it will on the day that a GPU is at hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments], capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.timeout(900)  # twenty captures of graphs, in a process of their own
def test_smoke(tmp_path):
    done = run("--smoke", "--rounds", "1", "-o", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["device"]["smoke"] is True
    assert result["device"]["kernels_serve"] is False
    assert all(entry["ok"] for entry in result["kernels"] + result["networks"])
    measured = {(row["task"], row["network"], row["form"]) for row in result["times"]}
    networks = ("resnext_small", "resnext_small_elastic_fast")
    forms = ("eager", "kernels", "compiled", "compiled kernels")
    expected = {("inference", n, f) for n in networks for f in (*forms, "graph", "graph kernels")}
    assert measured == expected | {("training", n, f) for n in networks for f in forms}
    for row in result["times"]:
        assert row["milliseconds"] > 0
        assert (row["of_base_in_this_form"]["median"] == 1) >= (row["network"] == networks[0])
        assert row["peak_bytes"] is None
    assert "correctness: 0 wrong of 4 cases and 2 networks" in done.stdout
