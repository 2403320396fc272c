"""Compile the native kernels: a shared library a part, kept under a name that says what it was made from.

A part is made of the sources of some folders of `cpu/` (`PARTS`), so that none waits for another. A source `*_simd.cpp`
is compiled once for each of the part's instruction sets (`LEVELS`), with `ELASTIC_LEVEL` set to its name, and knows
nothing of torch; every other source is compiled once and may register operators.

A library's name ends in a digest of its sources, flags and torch version: a library that does not fit is never found,
and nothing has to be cleaned. It is written to a temporary file and renamed, under a lock that dies with its holder, so
that many processes may ask at once and one of them compiles.

This file stands alone (it imports nothing of the package), because `setup.py` uses it before the package exists.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "cpu"


@dataclass(frozen=True)
class Part:
    """What one library is made of.

    folders: of `cpu/`; levels: the instruction sets of its `*_simd.cpp`; flags: of all its sources.
    """

    folders: tuple[str, ...]
    levels: tuple[str, ...]
    flags: tuple[str, ...] = ()


PARTS = {
    "inference": Part(("common", "inference"), ("avx512", "avx2")),
    "bf16": Part(("common", "inference"), ("avx512_bf16", "amx_bf16"), ("-DELASTIC_BF16",)),
    "training": Part(("common", "training"), ("avx512", "avx2", "avx512_bf16")),
}
LEVELS = {  # instruction set: the flags that allow it
    "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mavx2", "-mprefer-vector-width=512"),
    "avx2": ("-mavx2", "-mfma"),
}
LEVELS["avx512_bf16"] = (*LEVELS["avx512"], "-mavx512bf16")
LEVELS["amx_bf16"] = (*LEVELS["avx512_bf16"], "-mamx-tile", "-mamx-bf16")
X86 = ("x86_64", "AMD64")
FLAGS = ("-O3", "-std=c++20", "-fPIC", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math")


class CannotBuild(Exception):
    """The kernels cannot be compiled here; the message says why, and what would help."""


def compiler() -> str:
    """The C++ compiler: `CXX`, else the first of c++, g++, clang++ on the path; empty where there is none."""
    wanted = os.environ.get("CXX", "").split()
    candidates = [wanted[0]] if wanted else ["c++", "g++", "clang++"]
    return next((found for name in candidates if (found := shutil.which(name))), "")


def why_not() -> str:
    """Why the kernels cannot be compiled for this machine; empty where they can."""
    if platform.machine() not in X86:
        return f"the native kernels are for x86-64 processors, and this one is {platform.machine() or 'unknown'}"
    return "" if compiler() else "no C++ compiler found (install g++, or set CXX)"


def sources(part: str) -> list[Path]:
    """The sources of one part, in order. `ValueError` for an unknown part."""
    return _files(part, "*.cpp")


def headers(part: str) -> list[Path]:
    """The headers that a part's sources may include."""
    return _files(part, "*.h")


def _files(part: str, pattern: str) -> list[Path]:
    if part not in PARTS:
        raise ValueError(f"unknown part {part!r} of the kernels; choose from {', '.join(PARTS)}")
    return [path for folder in PARTS[part].folders for path in sorted((SOURCES / folder).glob(pattern))]


def included(source: Path) -> list[Path]:
    """The headers of `cpu/` that a source includes, directly or through another."""
    found: dict[Path, None] = {}
    waiting = [source]
    while waiting:
        names = re.findall(r'^#include "(.+)"', waiting.pop().read_text(), re.MULTILINE)
        new = [path for name in names if (path := SOURCES / name) not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return sorted(found)


def extra_flags() -> list[str]:
    """Flags from the environment variable ELASTIC_KERNELS_CFLAGS, as a sanitizer needs."""
    return os.environ.get("ELASTIC_KERNELS_CFLAGS", "").split()


def _torch_flags() -> list[str]:
    """What `torch.utils.cpp_extension` would pass; importing it needs setuptools and looks for a GPU's compiler."""
    import torch

    include = Path(torch.__file__).parent / "include"
    abi = int(torch.compiled_with_cxx11_abi())
    return [
        f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
        f"-isystem{include}",
        f"-isystem{include / 'torch/csrc/api/include'}",
    ]


def compilations(part: str) -> list[tuple[Path, list[str]]]:
    """(source, flags) of every object of a part."""
    wanted: list[tuple[Path, list[str]]] = []
    base = [*FLAGS, *PARTS[part].flags, "-I."]  # the compiler runs in SOURCES
    torch_flags = _torch_flags()
    for source in sources(part):
        if not source.stem.endswith("_simd"):
            wanted.append((source, [*base, *torch_flags, *extra_flags()]))
        else:
            for level in PARTS[part].levels:
                wanted.append((source, [*base, *LEVELS[level], f"-DELASTIC_LEVEL={level}", *extra_flags()]))
    return wanted


def digest(part: str) -> str:
    """What a part's library depends on: sources, headers, flags, torch, Python's platform."""
    import torch

    state = hashlib.sha256()
    for path in [*sources(part), *headers(part)]:
        state.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    settings = (FLAGS, PARTS[part], LEVELS, extra_flags(), torch.__version__, platform.machine(), sys.platform)
    state.update(repr(settings).encode())
    return state.hexdigest()[:16]


def library_name(part: str) -> str:
    """The file name of a part's library as it would be compiled from the sources that stand here now."""
    return f"elastic_{part}_{digest(part)}.so"


def cache_folder() -> Path:
    """Where libraries compiled on first use are kept: torch's folder for extensions (TORCH_EXTENSIONS_DIR)."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or user / "torch_extensions") / "elastic_cnn"


def find(part: str) -> Path | None:
    """A library that fits: beside this file, as an installation leaves it, or in the cache."""
    name = library_name(part)
    return next((path for path in (SOURCES.parent / name, cache_folder() / name) if path.is_file()), None)


def find_or_build(part: str) -> Path:
    """The library of a part, compiled into the cache where none fits, which a line on stderr says before it takes about
    a minute. `CannotBuild` says why there is none."""
    if (found := find(part)) is not None:
        return found
    if not why_not():
        print(f"compiling native kernels ({part}), once for this machine ...", file=sys.stderr, flush=True)
    return build(part, cache_folder())


def build(part: str, folder: Path) -> Path:
    """Compile a part into `folder`, once however many processes ask. `CannotBuild` where that is not possible."""
    if reason := why_not():
        raise CannotBuild(reason)
    if not sources(part):
        raise CannotBuild(f"this installation has no sources of its {part} kernels")
    target = Path(folder).resolve() / library_name(part)  # the compiler runs in a folder of its own
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_suffix(".lock")):
            if not target.is_file():
                _compile(part, target)
    except OSError as error:
        raise CannotBuild(f"cannot write {target}: {error}") from error
    return target


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock on `path`; the system lets go of it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError as error:
        raise CannotBuild("compiling on first use needs a POSIX system") from error
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotBuild(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()[-1:]
        raise CannotBuild(f"{command[0]} failed ({done.returncode}): {' '.join(lines[:3])}")


def _compile(part: str, target: Path) -> None:
    import torch

    with tempfile.TemporaryDirectory(prefix=f".{part}.", dir=target.parent) as scratch:

        def compiled(job: tuple[Path, list[str]]) -> str:
            """The object of a source; those of an earlier attempt serve again where nothing of theirs has changed."""
            source, flags = job
            state = hashlib.sha256(repr((compiler(), flags, torch.__version__)).encode())
            for path in (source, *included(source)):
                state.update(b"\0" + path.read_bytes())
            made = target.parent / "objects" / f"{source.parent.name}_{source.stem}_{state.hexdigest()[:16]}.o"
            if not made.is_file():
                made.parent.mkdir(exist_ok=True)
                temporary = f"{scratch}/{made.name}"
                _run([compiler(), *flags, "-c", str(source), "-o", temporary])
                os.replace(temporary, made)
            return str(made)

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            objects = list(pool.map(compiled, compilations(part)))
        library = f"{scratch}/library.so"
        torch_libraries = Path(torch.__file__).parent / "lib"
        link = ["-shared", "-fopenmp", f"-L{torch_libraries}", "-ltorch_cpu", "-lc10", *extra_flags()]
        _run([compiler(), *objects, *link, "-o", library])
        os.replace(library, target)
