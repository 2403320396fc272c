"""`elastic doctor`: what it says agrees with the process and the machine, in words and as JSON."""

import json
import os

import pytest
import torch

from elastic_cnn.cli import main
from elastic_cnn.kernels import build, doctor, native


def by_topic():
    return {finding.topic: finding for finding in doctor.diagnose()}


def test_json_says_what_the_process_has(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["torch"] == torch.__version__
    assert report["kernel_level"] == native.level()
    topics = [finding["topic"] for finding in report["findings"]]
    assert {"compiler", "processor", "threads", "allocator", "torch", "GPU", "extra train"} <= set(topics)
    assert any(topic.startswith("native kernels") for topic in topics)


def test_lines_show_every_topic(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for topic in by_topic():
        assert topic in printed


def test_kernels_that_cannot_be_had_are_explained(monkeypatch):
    monkeypatch.setattr(native, "load", lambda part="inference": native.Loaded(None, "g++ failed"))
    finding = by_topic()["native kernels"]
    assert "plain PyTorch" in finding.text
    assert "g++ failed" in finding.text
    assert not finding.ok


def test_required_kernels_that_cannot_be_had_are_an_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(native, "load", lambda part="inference": native.Loaded(None, "g++ failed"))
    assert main(["doctor"]) == 0
    assert main(["doctor", "--require"]) == 1
    assert main(["doctor", "--require", "--json"]) == 1
    assert "g++ failed" in capsys.readouterr().out


def test_another_processor_is_told_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    monkeypatch.delenv("ELASTIC_KERNELS", raising=False)
    assert native.load.__wrapped__().reason == "the native kernels are for x86-64 processors, and this one is aarch64"
    assert capsys.readouterr().err == ""  # nothing is compiled
    assert not list(tmp_path.rglob("*.so"))


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = by_topic()["compiler"]
    assert not finding.ok
    assert "CXX" in finding.advice


def test_too_many_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    finding = by_topic()["threads"]
    assert not finding.ok
    assert "OMP_NUM_THREADS" in finding.advice


@pytest.mark.parametrize(
    ("variables", "maps", "ok"),
    [
        ({}, ["x /usr/lib/libtcmalloc.so.4"], True),
        ({}, ["x /usr/lib/libc.so.6"], False),
        ({"MALLOC_TRIM_THRESHOLD_": str(1 << 32)}, ["x /usr/lib/libc.so.6"], True),
    ],
)
def test_allocator(monkeypatch, variables, maps, ok):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "_lines", lambda path: maps if path.endswith("maps") else [])
    finding = by_topic()["allocator"]
    assert finding.ok is ok
    assert bool(finding.advice) is not ok


def test_missing_extra(monkeypatch):
    monkeypatch.setattr(doctor, "EXTRAS", {"train": ("no_such_package",), "figures": ("json",)})
    findings = by_topic()
    assert findings["extra train"].advice == 'pip install "elastic-cnn[train]"'
    assert findings["extra figures"].ok


def test_extras_are_those_of_the_package():
    import importlib.metadata

    offered = set(importlib.metadata.metadata("elastic-cnn").get_all("Provides-Extra") or [])
    assert set(doctor.EXTRAS) - {"export"} <= offered


def test_switches_of_the_loader(monkeypatch, tmp_path):
    fresh = native.load.__wrapped__
    monkeypatch.setenv("ELASTIC_KERNELS", "off")
    assert not fresh()
    monkeypatch.setenv("ELASTIC_KERNELS", "perhaps")
    with pytest.raises(ValueError, match="ELASTIC_KERNELS"):
        fresh()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(build, "SOURCES", tmp_path / "nothing")
    monkeypatch.setenv("ELASTIC_KERNELS", "prebuilt")
    assert "prebuilt" in fresh().reason
    monkeypatch.setenv("ELASTIC_KERNELS", "auto")
    assert "no sources" in fresh().reason
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(tmp_path)


def write_source(folder, text):
    (folder / "cpu" / "inference").mkdir(parents=True, exist_ok=True)
    (folder / "cpu" / "inference" / "only.cpp").write_text(text)


@pytest.mark.skipif(not build.compiler(), reason="no C++ compiler here")
def test_first_use_compiles_once_and_says_so_and_a_fault_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(build, "SOURCES", tmp_path / "cpu")
    monkeypatch.setattr(build, "_torch_flags", list)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    write_source(tmp_path, 'extern "C" int answer() { return 42; }')
    first = build.find_or_build("inference")
    assert capsys.readouterr().err == "compiling native kernels (inference), once for this machine ...\n"
    written = first.stat().st_mtime_ns
    assert build.find_or_build("inference") == first
    assert capsys.readouterr().err == ""
    assert first.stat().st_mtime_ns == written
    write_source(tmp_path, 'extern "C" int answer() { return 43; }')
    assert build.find("inference") is None  # other sources, another name
    assert build.find_or_build("inference") != first
    write_source(tmp_path, "int answer( {")
    with pytest.raises(build.CannotBuild, match="error"):
        build.find_or_build("inference")
    assert not list((tmp_path / "cache").rglob(".inference*"))  # nothing half made is left
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.CannotBuild, match="no C\\+\\+ compiler"):
        build.find_or_build("inference")
