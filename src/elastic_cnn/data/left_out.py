"""Files that could not be read: left out with a warning, and counted; or, when strict, an error."""

import sys
from collections.abc import Callable

from elastic_cnn.data.sampler import UnreadableSample


def warn(text: str) -> None:
    """A line on standard error."""
    print(f"elastic: warning: {' '.join(text.split())}", file=sys.stderr, flush=True)


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
        self.last = path
        if path not in self.paths:
            self.paths.add(path)
            warn(f"left out: {path} cannot be read: {reason}")
