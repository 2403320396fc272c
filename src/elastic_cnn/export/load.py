"""Reading an exported file back, whatever its format."""

from pathlib import Path

from elastic_cnn.export.description import card_from
from elastic_cnn.export.formats import Run, format_of
from elastic_cnn.zoo.checkpoint import NetworkCard


def load_exported(path: str | Path, threads: int | None = None) -> tuple[Run, NetworkCard]:
    """The file of `elastic export` as a function, images `(N, C, H, W)` -> logits, and its card.

    threads: of the runtime (by default torch's number; a `.pt2` program runs on torch's threads).
    Raises `ValueError`, naming the file, where it is missing, broken, of an unknown format or without a card.
    """
    path = Path(path)
    found = format_of(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    run, values = found.read(path, threads)
    return run, card_from(values, path)
