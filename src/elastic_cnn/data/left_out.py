"""Files that could not be read: left out with a warning, and counted; or, when strict, an error."""

import os
import sys
from collections.abc import Callable

from torch.utils.data import get_worker_info

from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.text import printable

_said: set[str] = set()


def warn(text: str) -> None:
    """A line on standard error."""
    print(f"elastic: warning: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)


def once(key: str, text: str) -> None:
    """A warning that a process gives but once for each `key`; of several, the first process and its first worker."""
    worker = get_worker_info()
    if key in _said or os.environ.get("RANK", "0") != "0" or (worker is not None and worker.id != 0):
        return
    _said.add(key)
    warn(text)


class LeftOut:
    """Files that could not be read: each is warned about once and counted once (`paths`); strict: an error."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.paths: set[str] = set()
        self.last = ""

    def note(self, path: str, reason: str, warn: Callable[[str], None] = warn) -> None:
        """A file that could not be read. Raises `UnreadableSample` when strict."""
        if self.strict:
            raise UnreadableSample(path, reason)
        self.last, place = path, os.path.abspath(path)  # a run may go on from another folder
        if place not in self.paths:
            self.paths.add(place)
            warn(f"left out: {path} cannot be read: {reason}")
