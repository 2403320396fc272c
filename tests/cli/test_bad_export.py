"""`elastic export` on broken photos, arguments and places to write: one line or counted warnings, nothing lost."""

import shutil
from pathlib import Path

import pytest
import torch
from bad_files import bad_pictures, good_pictures, write_files
from bad_runs import Shell

from elastic_cnn.export import job
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint

KWARGS = {"num_classes": 2, "stem_width": 8, "channels": [8, 8, 16, 16]}
CARD = NetworkCard("resnet10t", KWARGS, "classification", ("bad", "good"), InputSpec((40, 40)))
GOOD, BAD = good_pictures(), {name: content for name, (content, _) in bad_pictures().items()}


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """net.safetensors; photos/ good and broken; data/val/{good,bad}."""
    root = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    save_checkpoint(root / "net.safetensors", CARD.build(), CARD)
    write_files(root / "photos", [*GOOD.items(), *BAD.items()])
    write_files(root / "data" / "val" / "good", GOOD.items())
    write_files(root / "data" / "val" / "bad", BAD.items())
    write_files(root / "broken" / "val" / "bad", BAD.items())
    write_files(root / "other" / "val" / "grey", [(b"1.png", GOOD[b"cmyk.jpg"])])
    (root / "empty").mkdir()
    (root / "file").write_text("mine")
    return root


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# arguments after the checkpoint -> (what the line names, what it says)
ARGUMENTS = [
    (["--format", "onxx"], "'onxx'", "did you mean onnx?"),
    ([], "onnx, openvino, pt2", "name a format"),
    (["-o", "{root}/net.xml", "--target", "amd"], "'amd'", "did you mean amx?"),
    (["-o", "{root}/net"], "{root}/net", "must end in .onnx, .xml, .pt2"),
    (["-o", "{root}/net.tflite"], "{root}/net.tflite", "must end in .onnx"),
    (["-o", "{root}/net.pt2", "--format", "onnx"], "{root}/net.pt2", "must end in .onnx"),
    (["-o", "{root}/file/net.pt2"], "{root}/file", "is no folder"),
    (["-o", "{root}/net.pt2", "--fixed-size", "-3"], "--fixed-size=-3", "must be at least 1"),
    (
        ["-o", "{root}/net.pt2", "--fixed-size", "big"],
        "--fixed-size=big",
        "a side in pixels, or height and width as 32x128",
    ),
    (["-o", "{root}/net.pt2", "--fixed-size", "3000000"], "3000000", "of six digits at most"),
    (["-o", "{root}/net.pt2", "--limit", "3"], "--limit", "--test"),
    (["-o", "{root}/net.pt2", "--test", "{root}/data", "--limit", "0"], "--limit", "at least 1, got 0"),
    (["-o", "{root}/net.pt2", "--test", "{root}/nowhere"], "{root}/nowhere", "there is no folder"),
    (["-o", "{root}/net.pt2", "--test", "{root}/data", "--split", "vall"], "{root}/data", "no folder 'vall'"),
    (["-o", "{root}/net.pt2", "--test", "{root}/other"], "{root}/other", "'grey', which the 2 classes"),
    (["-o", "{root}/net.pt2", "--test", "{root}/data", "--strict"], "{root}/data/val/bad", "cannot be read"),
    (["-o", "{root}/net.onnx", "--int8"], "--images", "go together"),
    (["-o", "{root}/net.onnx", "--images", "{root}/photos"], "--int8", "go together"),
    (["-o", "{root}/net.onnx", "--count", "3"], "--count", "go with --int8"),
    (["-o", "{root}/net.onnx", "--calibration", "entropy"], "--calibration", "go with --int8"),
    (["-o", "{root}/net.pt2", "--int8", "--images", "{root}/photos"], "pt2", "onnx and openvino"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/photos", "--count", "0"], "photos", "at least 1, got 0"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/photos", "--calibration", "max"], "'max'", "minmax"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/nowhere"], "{root}/nowhere", "there is no folder"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/file"], "{root}/file", "is not a folder"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/empty"], "{root}/empty", "holds no images"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/broken"], "{root}/broken", "none of 11 photos"),
    (["-o", "{root}/net.onnx", "--int8", "--images", "{root}/broken", "--strict"], "{root}/broken", "cannot be read"),
]


@pytest.mark.parametrize(("words", "named", "says"), ARGUMENTS)
def test_arguments(words, named, says, made, shell):
    before = tree(made)
    words = [word.format(root=made) for word in words]
    shell.refuses("export", made / "net.safetensors", *words, named=named.format(root=made), says=says)
    assert tree(made) == before


def test_what_is_there_stays(made, tmp_path, shell):
    """Files, both of OpenVINO's, and folders, which --overwrite does not replace either."""
    export = ("export", made / "net.safetensors", "-o")
    for name in ("net.pt2", "net.onnx", "net.xml"):
        (tmp_path / name).write_text("mine")
        shell.refuses(*export, tmp_path / name, named=str(tmp_path / name), says="--overwrite")
        (tmp_path / f"folder_{name}").mkdir()
        shell.refuses(*export, tmp_path / f"folder_{name}", "--overwrite", named=f"folder_{name}", says="is a folder")
    (tmp_path / "net.xml").unlink()
    (tmp_path / "net.bin").write_text("mine")
    shell.refuses(*export, tmp_path / "net.xml", named=str(tmp_path / "net.bin"), says="--overwrite")
    assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"mine"}
    assert len(tree(tmp_path)) == 6


def lines(shell: Shell) -> list[str]:
    return [line for line in shell.err.splitlines() if line.startswith("elastic: warning: left out: ")]


def test_broken_photos_to_calibrate_on_are_left_out_with_a_warning_each_and_counted(made, tmp_path, shell):
    words = ("export", made / "net.safetensors", "-o", tmp_path / "net.onnx", "--int8", "--images", made / "photos")
    assert shell.run(*words, "--count", len(GOOD) + len(BAD)) == 0
    assert len(lines(shell)) == len(BAD)
    assert all(f"{made}/photos/" in line and "cannot be read" in line for line in lines(shell))
    assert f"calibrated on {len(GOOD)} photos" in shell.out
    assert f"{len(BAD)} unreadable photos left out" in shell.out


def test_broken_photos_to_test_on_are_left_out_with_a_warning_each_and_counted(made, tmp_path, shell):
    words = ("export", made / "net.safetensors", "-o", tmp_path / "net.pt2", "--fixed-size", "--test")
    assert shell.run(*words, made / "data") == 0
    assert len(lines(shell)) == len(BAD)
    assert f"{len(BAD)} unreadable photos left out" in shell.out
    shell.refuses(*words, made / "broken", "--overwrite", named=f"{made}/broken/val", says="no photo")


@pytest.mark.parametrize("name", ["net.pt2", "net.onnx"])
def test_a_file_that_fails_its_check_or_cannot_be_moved_leaves_the_old_one(name, made, tmp_path, shell, monkeypatch):
    """The disk fails last of all, and a network whose file differs: what was there is there still."""
    out = tmp_path / name
    export = ("export", made / "net.safetensors", "-o", out, "--fixed-size", "--overwrite")
    out.write_text("mine")
    before = tree(tmp_path)

    def full(file: Path, target: Path, beside: str | None) -> None:
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(job, "_move", full)
    line = shell.refuses(*export, named=f"{out} could not be written", says="No space left on device")
    assert f"/.{name}" not in line  # no temporary name
    monkeypatch.undo()
    monkeypatch.setattr("elastic_cnn.export.check.TOLERANCE", -1.0)
    shell.refuses(*export, named="differs from the network", says="no file was left")
    assert tree(tmp_path) == before
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_a_folder_that_cannot_be_made(made, tmp_path, shell, monkeypatch):
    """A disk that turns out to be read-only: the file that was asked for is named, and no temporary one."""

    def read_only(*_: object, **__: object) -> str:
        raise OSError(30, "Read-only file system", str(tmp_path / ".net.pt2.x"))

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    line = shell.refuses(
        *("export", made / "net.safetensors", "-o", tmp_path / "net.pt2", "--fixed-size"),
        named=str(tmp_path / "net.pt2"),
        says="could not be written (Read-only file system)",
    )
    assert ".net.pt2" not in line.replace(str(tmp_path / "net.pt2"), "")


def test_a_run_folder_without_weights(made, tmp_path, shell):
    shell.refuses("export", tmp_path, "--format", "onnx", named=str(tmp_path), says="without best.safetensors")
    shutil.copy(made / "net.safetensors", tmp_path / "net.ckpt")
    shell.refuses("export", tmp_path / "net.ckpt", "--format", "onnx", named="net.ckpt", says="not a .safetensors")
