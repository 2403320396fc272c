"""The child process that runs networks for `pool.py`: commands as JSON lines on standard input, answers on output.

{"do": "prepare", "subject": {...}}   -> {"ok": true} or {"unavailable": reason} or {"invalid": message}
{"do": "run", "index": i}             -> {"seconds": s}
{"do": "memory", "index": i}          -> {"bytes": most memory held during one call, above an idle process'}
"""

import ctypes
import json
import os
import sys
import time
import traceback
from typing import Any

import torch

from elastic_cnn.analysis.benchmark.forms import Run, Subject, Unavailable, prepare

DIE_WITH_PARENT = 1  # Linux: PR_SET_PDEATHSIG


def main() -> None:
    """Answer commands until standard input ends."""
    if sys.platform == "linux":  # a worker that is halted when its parent is killed would stay for ever
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, 9)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    runs: list[Run] = []
    idle = resident()
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(_answer(command, runs, idle)), file=answers, flush=True)


def _answer(command: dict[str, Any], runs: list[Run], idle: int) -> dict[str, Any]:
    try:
        if command["do"] == "prepare":
            run = prepare(Subject(**command["subject"]))
            run()  # what cannot run is found out here, and what compiles compiles
            runs.append(run)
            return {"ok": True}
        if command["do"] == "memory":
            return {"bytes": peak(runs[command["index"]], idle)}
        began = time.perf_counter()
        runs[command["index"]]()
        return {"seconds": time.perf_counter() - began}
    except Unavailable as error:
        return {"unavailable": " ".join(str(error).split())}
    except (ValueError, OSError) as error:
        return {"invalid": " ".join(str(error).split())}
    except Exception as error:  # a compiler or runtime that fails must not end the other measurements
        traceback.print_exc()
        return {"unavailable": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def resident() -> int:
    """Bytes of this process in memory, 0 where the system does not say."""
    return _status("VmRSS")


def peak(run: Run, idle: int) -> int | None:
    """The most memory held during one call above `idle`: weights, activations, workspace. None if not known."""
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark starts anew
    except OSError:
        return None
    run()
    return _status("VmHWM") - idle


def _status(key: str) -> int:
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    main()
