"""The processes that share the work of studies, and what each of them may use."""

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from elastic_cnn.tasks.memory import KEEP_MEMORY


def start_processes(arguments: Sequence[str], number: int) -> int:
    """Run `elastic study ARGUMENTS` in so many processes, which share the work; the greatest of their exit codes.

    They keep their memory (`KEEP_MEMORY`) unless the environment says otherwise.
    """
    command = [sys.executable, "-m", "elastic_cnn", "study", *arguments]
    environment = {**KEEP_MEMORY, **os.environ}
    processes = [subprocess.Popen(command, env=environment) for _ in range(number)]
    try:
        return max(process.wait() for process in processes)
    except KeyboardInterrupt:  # they get the signal too, save their state and end
        for process in processes:
            process.wait()
        raise


def set_threads(number: int | None) -> None:
    """Processor threads of this process; torch's choice where none is asked for."""
    if number is not None:
        torch.set_num_threads(number)
