"""Why a run ended that the machine failed, in words: memory, a process that reads images, another of the run."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elastic_cnn.tasks.recipe import Recipe

if TYPE_CHECKING:
    from lightning import Fabric

MEMORY = ("allocate memory", "out of memory")
READER = ("DataLoader worker", "unable to mmap", "shared memory")  # in messages of torch's loader
PEER = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "NCCL", "gloo")
BROKEN = (ConnectionError, EOFError, FileNotFoundError)  # the last: its socket is gone
ONE_VALUE = "Expected more than 1 value per channel"


def explain(error: BaseException, recipe: Recipe, processes: int) -> Exception | None:
    """The error to show in place of one that the machine caused; None where it is a fault of the program.

    `ValueError` where memory ran out (says what to lower), `OSError` where a process that reads images was killed,
    `ConnectionError` where another process of a distributed run is gone.
    """
    text = str(error)
    if (end := reader_ended(error)) is not None:
        reason = [*str(end).splitlines(), type(end).__name__][0]
        return OSError(
            f"a process that reads images ended ({reason}): it was killed, or memory ran out; "
            "go on with --resume, with fewer --workers if it comes again"
        )
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(part in text for part in MEMORY):
        return ValueError(_out_of_memory(recipe, error))
    if processes > 1 and (isinstance(error, torch.distributed.DistError) or any(part in text for part in PEER)):
        return ConnectionError(
            "another process of the run is gone; its own message, or the launcher's, says which and why: "
            f"go on with --resume ({text.splitlines()[0]})"
        )
    if ONE_VALUE in text:
        return ValueError(
            "a batch holds one readable image alone, and batch norm needs two: raise batch_size, lower accumulate, or "
            f"remove broken files ({text.splitlines()[0]})"
        )
    return None


def reader_ended(error: BaseException) -> BaseException | None:
    """The error, or one that it came after, which says that a process that reads images has ended.

    The loader's is raised by a signal, in the middle of anything; what that was may fail in turn and hide it.
    """
    found: BaseException | None = error
    while found is not None and not (any(part in str(found) for part in READER) or _in_transfer(found)):
        found = found.__cause__ or found.__context__
    return found


@contextmanager
def readers_told_once() -> Iterator[None]:
    """Where the watch speaks up in a place that cannot fail (a finalizer), Python prints a traceback and goes on; here
    nothing is printed, for the loader notices as well."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda failed: None if failed.exc_value and reader_ended(failed.exc_value) else before(failed)
    try:
        yield
    finally:
        sys.unraisablehook = before


def _in_transfer(error: BaseException) -> bool:
    """Whether a connection broke while this process took images from one that reads them."""
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, BROKEN) and any(name.startswith("multiprocessing.") for name in frames)


def _out_of_memory(recipe: Recipe, error: BaseException) -> str:
    share = f"accumulate={recipe.accumulate * 2} (now {recipe.accumulate}: the same batch in smaller parts)"
    precision = ", precision=bf16-mixed" if recipe.precision == "fp32" else ""
    return (
        f"out of memory: try {share}, a lower batch_size (now {recipe.batch_size}), val_batch_size or image_size "
        f"(now {recipe.image_size}){precision}. {str(error).splitlines()[0] if str(error) else ''}"
    )


def check_same_start(fabric: "Fabric", folder: Path, step: int) -> None:
    """All processes must go on from the same state: on several machines they must see the same folder.

    Raises `ValueError` in all of them where the optimizer steps done, `step`, differ.
    """
    steps: list[Any] = [step] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise ValueError(
            f"the processes found different states in {folder} (steps {', '.join(map(str, steps))}): "
            "put the run's folder on a disk that all machines share"
        )
