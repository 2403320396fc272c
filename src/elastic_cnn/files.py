"""Writing files so that nothing is lost: whole or not at all, and never over an existing result in silence."""

import csv
import errno
import io
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FAULTS_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # named without a file


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Put the file's name before the message of a `ValueError`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def refuse_to_overwrite(path: str | Path, remedy: str = "choose another path, or pass --overwrite") -> Path:
    """`path`, if nothing is there yet; a folder may exist when it is empty. Else `ValueError`."""
    path = Path(path)
    if path.is_dir() and not any(path.iterdir()):
        return path
    if path.exists():
        raise ValueError(f"{path} exists already: {remedy}")
    return path


def refuse_output(path: str | Path, overwrite: bool = False, folder: bool = False) -> Path:
    """`path`, if a result can be written there: a file, or with `folder` a folder of them, that does not exist yet (or
    may be replaced) in a place that can be written into. Else `ValueError`; to be asked before any work is done."""
    path = Path(path)
    if not overwrite:
        refuse_to_overwrite(path)
    return refuse_unwritable_folder(path) if folder else refuse_unwritable(path)


def refuse_unwritable(path: str | Path) -> Path:
    """`path`, if a file can be written there as far as can be told beforehand. Else `ValueError`; writes nothing."""
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file to write")
    if reason := _no_place_for_a_file(path):
        raise ValueError(f"{path} {reason}")
    with naming(path):
        refuse_unwritable_folder(path.parent)
    return path


def _no_place_for_a_file(path: Path) -> str:
    """Why a file must not take the place of `path`, though it could (to root); empty where it may."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return "is a device, a pipe or a socket, not a file: name a file to write"
    if path.absolute().parent == Path("/dev"):  # /dev/stdout, which may lead to a file
        return "is the system's: name a file elsewhere"
    return ""


def refuse_unwritable_folder(folder: str | Path) -> Path:
    """`folder`, if it is one that files can be written into, or could be made. Else `ValueError`; makes nothing."""
    folder = Path(folder)
    nearest = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), Path("."))
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is no folder: nothing can be written into {folder}; choose another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{nearest} cannot be written into: mend that, or choose another place")
    return folder


def not_written(path: str | Path, error: OSError) -> OSError:
    """The error to raise where `path` could not be written: names it in place of any temporary file."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        reason = f"{error.filename} is no folder"
    found = OSError(f"{path} could not be written ({reason})")
    found.errno = error.errno
    return found


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`; moved onto it, flushed to disk, when the block ends without an error.

    Raises `OSError`, naming `path` and not the temporary file, where it cannot be written; what was there is kept.
    """
    path = Path(path)
    if reason := _no_place_for_a_file(path):
        raise OSError(f"{path} {reason}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise not_written(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == name or (error.filename is None and error.errno in FAULTS_OF_DISKS):
            raise not_written(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path) -> Iterator[str | None]:
    """Hold the lock file `path` within the block: None, or who holds it already ("process 12 on HOST").

    The system frees it when the process ends, however it ends; the file is gone after the block. Its folder is made.
    Raises `OSError`, naming the folder, where nothing can be written. No lock where the system has none (Windows).
    """
    path, holder = Path(path), None
    try:
        import fcntl
    except ImportError:
        yield None
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:  # not `flock`: processes that this one starts would hold it too, after its end
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
                break
            if os.fstat(handle).st_nlink:  # else its last holder has just removed it
                break
            os.close(handle)
    except OSError as error:
        raise not_written(path.parent, error) from error
    try:
        if holder is None:
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield holder
    finally:
        if holder is None:
            with suppress(OSError):
                os.unlink(path)
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Atomically, as UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Atomically, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, header: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    """Atomically, as UTF-8; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, stream.getvalue())


class _Output:
    """Standard output whose faults name it, whoever writes; the first one is kept, as argparse takes no notice."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.fault: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return self._told(self._stream.write, text)

    def flush(self) -> None:
        self._told(self._stream.flush)

    def _told(self, do: Callable[..., Any], *values: Any) -> Any:
        try:
            return do(*values)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.fault = self.fault or not_written("standard output", error)
            with suppress(OSError, ValueError):  # nor at the end of Python, which would write what is left
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise self.fault from error


@contextmanager
def standard_output_named() -> Iterator[None]:
    """Inside, and for what is not written out yet at its end, a fault of standard output (`> /dev/full`) is an
    `OSError` that names it."""
    stream, sys.stdout = sys.stdout, _Output(sys.stdout)
    output: Any = sys.stdout
    try:
        try:
            yield
        finally:
            output.flush()
            if output.fault is not None:
                raise output.fault
    finally:
        sys.stdout = stream


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
