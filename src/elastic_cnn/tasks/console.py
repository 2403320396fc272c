"""What a run shows on the terminal: progress bars with images a second, lines, and warnings about broken files."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elastic_cnn.data.left_out import LeftOut
from elastic_cnn.extras import require
from elastic_cnn.text import printable, printable_lines

tqdm = require("tqdm", "train").tqdm


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, not whether it has merely imported what kernels are made of."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return getattr(shell, "kernel", None) is not None


def _kind_of_bar() -> Any:
    """Bars of a notebook where it has the package for them, else of text."""
    if in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        return require("tqdm.notebook", "train").tqdm
    return tqdm


class Console:
    """Bars and lines on the first process; silent on the others, whose `shown` the engine sets to False.

    progress: whether to show bars; None for on terminals alone.
    """

    def __init__(self, progress: bool | None = None) -> None:
        self.shown = True
        self.progress = sys.stderr.isatty() or in_notebook() if progress is None else progress

    @contextmanager
    def bar(self, label: str, images: int, done: int = 0) -> Iterator[Any]:
        """A bar that counts images, `done` of them already."""
        quiet = not (self.shown and self.progress)
        with _kind_of_bar()(
            total=images, initial=done, desc=label, unit=" images", disable=quiet, leave=False, smoothing=0.1
        ) as bar:
            yield bar

    def line(self, text: str) -> None:
        """A line on standard output."""
        if self.shown:
            tqdm.write(printable_lines(text))
            sys.stdout.flush()

    def tell_found(self, samples: Any) -> None:
        """What a data set found (`found_line`), and what is odd about it (`notices`), where it tells."""
        if self.shown and (line := getattr(samples, "found_line", None)):
            self.line(line)
            for notice in samples.notices:
                self.warn(notice)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        tqdm.write(f"elastic: warning: {printable(' '.join(text.split()))}", file=sys.stderr)


class Unreadable(LeftOut):
    """Files that could not be read, as batches tell of them."""

    def take(self, part: dict[str, Any], console: Console) -> int:
        """Take what could not be read out of a collated batch; returns how many samples that were.

        Raises `UnreadableSample` when strict, and `ValueError` for other bad input that a worker met.
        """
        if "error" in part:
            raise ValueError(part["error"])
        broken: list[tuple[str, str]] = part.pop("unreadable")
        for path, reason in broken:
            self.note(path, reason, console.warn)
        return len(broken)
