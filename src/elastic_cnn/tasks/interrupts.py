"""Ctrl-C and SIGTERM (preemption) end a run between two steps, after its state was saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from lightning import Fabric


class Interrupted(KeyboardInterrupt):
    """A run was ended by a signal; its state is saved. `code`: the exit code that shells expect (128 + signal)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Interrupts:
    """Notes the first SIGINT or SIGTERM; a second one acts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def agreed(self, fabric: Fabric) -> bool:
        """Whether any process was asked to stop: the same answer on all of them."""
        if fabric.world_size == 1:
            return self.requested
        flag = torch.tensor(float(self.requested), device=fabric.device)
        return bool(torch.as_tensor(fabric.all_reduce(flag, reduce_op="sum")) > 0)

    def error(self, folder: Path) -> Interrupted:
        """What to raise once the state is saved."""
        name = signal.Signals(self.signal).name if self.signal else "a signal to another process"
        return Interrupted(
            f"stopped by {name}; the state is saved, go on with --resume (folder {folder})", 128 + (self.signal or 15)
        )

    @contextmanager
    def caught(self) -> Iterator["Interrupts"]:
        """Within the block the two signals are noted; outside the main thread nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal = number
        print("elastic: stopping after this step; once more stops at once", file=sys.stderr)
