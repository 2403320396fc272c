"""Places that cannot be written: the file asked for is named, never a temporary one, and what is there stays."""

import errno
import os
from pathlib import Path

import pytest
from bad_runs import Shell

from elastic_cnn import files


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """Call it, and the disk is read-only: no file below `tmp_path` can be made or removed."""

    def refuse(name: object) -> None:
        if str(name).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))

    def begin() -> None:
        make, unlink = files.tempfile.mkstemp, Path.unlink

        def mkstemp(suffix: str, prefix: str, dir: Path) -> tuple[int, str]:
            refuse(f"{dir}/{prefix}x1y2z3{suffix}")
            return make(suffix=suffix, prefix=prefix, dir=dir)

        def gone(self: Path, missing_ok: bool = False) -> None:
            refuse(self)
            unlink(self, missing_ok)

        monkeypatch.setattr(files.tempfile, "mkstemp", mkstemp)
        monkeypatch.setattr(Path, "unlink", gone)

    return begin


@pytest.mark.parametrize("leftover", [None, ".last.ckpt.abcd.ckpt"])
def test_a_run_folder_that_became_read_only(leftover, tiny, tmp_path, shell, read_only):
    run = tmp_path / "run"
    train = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", run, "--workers", "0")
    assert shell.run(*train) == 0
    if leftover:
        (run / leftover).write_text("cut off")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    read_only()
    named = str(run) if leftover else str(run / "recipe.yaml")
    line = shell.refuses(*train, "--resume", named=named, says="could not be written (Read-only file system)")
    assert "/." not in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_name_of_a_temporary_file_is_told_nowhere(tmp_path, monkeypatch):
    """While it is made, written, flushed and moved, and of folders; another file's fault keeps its own name."""
    path = tmp_path / "out.json"
    path.write_text("mine")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"out.json could not be written \(No space left on device\)") as caught:
        files.write_json(path, [])
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    for place, reason in ((path / "below.json", "out.json is no folder"), (tmp_path, "Is a directory")):
        with pytest.raises(OSError, match=reason) as caught:
            files.write_json(place, [])
        assert f"{place} could not be written" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.atomic_write(path):
        (tmp_path / "elsewhere").read_text()
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.json"]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    """To root a device's place could be taken; /dev/stdout may lead to a file."""
    pipe = tmp_path / "out.json"
    os.mkfifo(pipe)
    link = tmp_path / "link.json"
    link.symlink_to("/dev/null")
    for path in (pipe, link, Path("/dev/null"), Path("/dev/stdout"), Path("/dev/out.json")):
        with pytest.raises(ValueError, match=f"{path} is (a device|the system's)"):
            files.refuse_unwritable(path)
        with pytest.raises(OSError, match=f"{path} is (a device|the system's)"):
            files.write_json(path, [])
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert Path("/dev/null").is_char_device()


def test_what_can_be_told_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert files.refuse_unwritable(tmp_path / "new" / "folder" / "out.json") == tmp_path / "new" / "folder" / "out.json"
    assert files.refuse_unwritable("out.json") == Path("out.json")
    for path, reason in ((tmp_path, "is a folder"), (tmp_path / "file" / "a" / "b", "file is no folder")):
        with pytest.raises(ValueError, match=reason):
            files.refuse_unwritable(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # to root all is open
    with pytest.raises(ValueError, match="cannot be written into"):
        files.refuse_unwritable(tmp_path / "out.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
