"""Child processes with networks to time; all are halted but the one whose network is running."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from types import TracebackType
from typing import Any

from elastic_cnn.analysis.benchmark.forms import ALONE, Subject, obstacle


class Worker:
    """One child process. `threads`: that it may use."""

    def __init__(self, threads: int):
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "elastic_cnn.analysis.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(threads))},
        )
        self.subjects = 0

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. `RuntimeError` where the process has died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._signal("SIGCONT")
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"unavailable": f"its process ended with code {self.process.wait()}"}
        answer = self.process.stdout.readline()
        if not answer:
            return {"unavailable": f"its process ended with code {self.process.wait()}"}
        self._signal("SIGSTOP")
        return json.loads(answer)

    def prepare(self, subject: Subject) -> dict[str, Any]:
        """Make a subject ready; on success the answer holds its `index`."""
        answer = self.ask(do="prepare", subject=asdict(subject))
        if "ok" in answer:
            answer["index"] = self.subjects
            self.subjects += 1
        return answer

    def close(self) -> None:
        """End the process."""
        self._signal("SIGCONT")
        self.process.kill()
        self.process.communicate()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self.process.poll() is None:  # Windows has neither: its workers are not halted
            self.process.send_signal(getattr(signal, name))


class Pool:
    """Workers for a set of subjects: those whose threads spin have one each, the others share one."""

    def __init__(self, threads: int):
        self.threads = threads
        self.shared: Worker | None = None
        self.workers: list[Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self.workers:
            worker.close()

    def prepare(self, subject: Subject, alone: bool = False) -> tuple[Worker | None, dict[str, Any]]:
        """The worker of a subject and its answer. `ValueError` where the subject is not valid."""
        if reason := obstacle(subject):
            return None, {"unavailable": reason}
        if alone or subject.form in ALONE:
            worker = self._new()
        else:
            self.shared = worker = self.shared or self._new()
        answer = worker.prepare(subject)
        if "invalid" in answer:
            raise ValueError(answer["invalid"])
        return worker, answer

    def _new(self) -> Worker:
        self.workers.append(Worker(self.threads))
        return self.workers[-1]


def call(worker: Worker, index: int) -> float:
    """Seconds of one call of a worker's subject. `OSError` where the worker is gone."""
    answer = worker.ask(do="run", index=index)
    if "seconds" not in answer:
        raise OSError(
            f"a network stopped while it was timed ({next(iter(answer.values()))}): memory may have run out, "
            "take smaller batches or a smaller size"
        )
    return answer["seconds"]
