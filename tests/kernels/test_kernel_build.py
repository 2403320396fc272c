"""Kernels that a machine can have, it has; what they share compiles and does what it says."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from elastic_cnn.kernels import build, native

CANNOT = build.why_not() or ("switched off by ELASTIC_KERNELS" if os.environ.get("ELASTIC_KERNELS") == "off" else "")
THREADS = r"""
#include "common/threads.h"
#include <cstdio>
#include <stdexcept>
#include <string>

int main() {
  for (int faulty = 0; faulty < 3; faulty++) {  // one thread of three throws, and the others wait for it
    try {
      elastic::parallel(3, [&](const elastic::Worker& worker) {
        worker.wait();
        if (worker.index == faulty) throw std::runtime_error("thread " + std::to_string(faulty));
        worker.wait();
      });
    } catch (const std::runtime_error& error) {
      std::puts(error.what());
    }
  }
  int sum[3] = {0, 0, 0};
  elastic::parallel(3, [&](const elastic::Worker& worker) {
    for (int round = 0; round < 1000; round++) {
      sum[worker.index] += round;
      worker.wait();
    }
  });
  std::puts(std::to_string(sum[0] + sum[1] + sum[2]).c_str());
}
"""


@pytest.mark.skipif(bool(CANNOT), reason=CANNOT or "-")
@pytest.mark.parametrize("part", build.PARTS)
def test_where_there_is_a_compiler_the_kernels_load(part):
    """Tests of the kernels are skipped where there are none: a kernel that does not compile must not look like that."""
    loaded = native.load(part)
    assert loaded, loaded.reason


@pytest.mark.skipif(bool(CANNOT), reason=CANNOT or "-")
def test_an_exception_in_a_thread_ends_the_region_and_is_thrown_again(tmp_path):
    source, program = tmp_path / "threads.cpp", tmp_path / "threads"
    source.write_text(THREADS)
    flags = ["-std=c++20", "-O1", "-fopenmp", f"-I{build.SOURCES}"]
    subprocess.run([build.compiler(), *flags, str(source), "-o", str(program)], check=True, timeout=120)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.split()) == (0, ["thread", "0", "thread", "1", "thread", "2", "1498500"])


def test_the_headers_that_a_source_includes(tmp_path, monkeypatch):
    """Directly or through another: where one changes, the source is compiled again."""
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    for name, text in {
        "a.h": '#include "b.h"\n',
        "b.h": '#include "a.h"\n',
        "c.h": "",
        "d.cpp": '#include "a.h"\n',
    }.items():
        (tmp_path / name).write_text(text)
    assert [path.name for path in build.included(tmp_path / "d.cpp")] == ["a.h", "b.h"]


def test_a_relative_folder_is_that_of_the_caller(tmp_path, monkeypatch):
    """As setuptools names it, which compiles the kernels with the package; the compiler runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "why_not", lambda: "")
    outputs = []

    def run(command, **_):
        outputs.append(Path(command[command.index("-o") + 1]))
        outputs[-1].touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build.subprocess, "run", run)
    made = build.build("bf16", Path("build/lib"))
    assert made == tmp_path / "build" / "lib" / build.library_name("bf16")
    assert made.is_file()
    assert all(path.is_absolute() for path in outputs)


def test_every_source_belongs_to_a_part():
    of_parts = {path for part in build.PARTS for path in (*build.sources(part), *build.headers(part))}
    assert of_parts == {path for path in build.SOURCES.rglob("*") if path.suffix in (".cpp", ".h")}
    for path in of_parts:  # and includes nothing of another part
        folders = {path.parent.name, *(other.parent.name for other in build.included(path))}
        assert any(folders <= set(part.folders) for part in build.PARTS.values()), path


@pytest.mark.skipif(bool(CANNOT) or torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason=CANNOT or "no AVX2")
def test_both_parts_use_one_instruction_set():
    assert all(native.load(part) for part in ("inference", "training"))
    assert torch.ops.elastic_cnn.train_level() == torch.ops.elastic_cnn.kernel_level() != ""
