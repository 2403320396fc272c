"""Places that cannot be written: the file asked for is named, never a temporary one, and what is there stays."""

import errno
import os
from pathlib import Path

import pytest
from bad_runs import Shell

from elastic_cnn import elasticize, files
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint


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


@pytest.mark.parametrize(
    "command",
    [
        "elasticize nothing.safetensors -o FILE/x.safetensors",
        "elasticize nothing.safetensors --photos nowhere -o FILE/x.safetensors",
        "convert nothing.pth.tar FILE/x.safetensors",
        "stress nothing.safetensors --data nowhere -o FILE/x",
        "eval nothing.safetensors --data nowhere --json FILE/x.json",
        "eval nothing.safetensors --data nowhere -o FILE/x",
        "predict nothing.safetensors nowhere -o FILE/x.csv",
        "recalibrate nothing.safetensors --data nowhere -o FILE/x.safetensors",
        "explore nothing.safetensors --data nowhere -o FILE/x",
        "segment nothing.safetensors PHOTO -o FILE/x",
        "train RECIPE --data nowhere -o FILE/x",
        "demo -o FILE/x",
        "demo --write-digits FILE/x",
        "summary --all --figure4 FILE/x.png",
        "benchmark nothing.safetensors -o FILE/x.json",
        "study new FILE/x.yaml",
    ],
)
def test_outputs_are_looked_at_before_anything_else(command, tiny, tmp_path, shell, monkeypatch):
    """Neither the network nor the photos are there: the output alone is named."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.touch()
    given = {"FILE": str(file), "PHOTO": str(tiny / "photos" / "val" / "dark" / "0.png"), "RECIPE": tiny / "tiny.yaml"}
    words = command.split()
    for name, value in given.items():
        words = [word.replace(name, str(value)) for word in words]
    shell.refuses(*words, named=str(file), says="is no folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_folder_of_a_policy_is_looked_at_before_the_photos(tiny, tmp_path, shell):
    network = create_model("resnet26", num_classes=2, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16))
    kwargs = {"num_classes": 2, "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    card = NetworkCard("resnet26", kwargs, classes=("dark", "light"), input=InputSpec(size=(32, 32)))
    checkpoint = save_checkpoint(tmp_path / "e.safetensors", elasticize(network), card)
    (tmp_path / "file").touch()
    shell.refuses("policy", checkpoint, "--data", "nowhere", "-o", tmp_path / "file", named="file", says="no folder")


def test_a_run_that_is_there_is_found_before_the_photos(tiny, tmp_path, shell):
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.ckpt").touch()
    shell.refuses("train", tiny / "tiny.yaml", "--data", "nowhere", "-o", run, named="holds a run already")


def test_the_picture_beside_a_conversion_is_not_replaced(tmp_path, shell):
    (tmp_path / "x.png").write_text("mine")
    words = ("elasticize", "nothing.safetensors", "--photos", "nowhere", "-o", tmp_path / "x.safetensors")
    shell.refuses(*words, named="x.png", says="exists already")
    assert (tmp_path / "x.png").read_text() == "mine"


def test_the_ending_of_a_figure_is_looked_at_first(tmp_path, shell):
    shell.refuses("summary", "nothing", "--figure4", tmp_path / "x.xyz", named="x.xyz", says=".png, .svg or .pdf")
