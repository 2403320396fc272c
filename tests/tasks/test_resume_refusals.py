"""A run goes on with its own data, state and logs, in one process at a time, or says why not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import Killed, crash_at, rows
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from elastic_cnn import files
from elastic_cnn.data.fingerprint import fingerprint
from elastic_cnn.data.image_folder import ImageFolder, eval_transform
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.run_log import Logged, RunLog
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.tasks.training import train

RESUME = Settings(accelerator="cpu", checkpoint_every=1, resume=True)
ALLOWED = Settings(accelerator="cpu", resume=True, allow_other_data=True)


@pytest.fixture
def stopped(whole, tmp_path) -> Path:
    """A copy of the unbroken run as it was before its last validation."""
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    (out / "previous.ckpt").rename(out / "last.ckpt")
    return out


def remove_one(data: Path) -> None:
    (data / "train" / "blue" / "3.png").unlink()


def rename_one(data: Path) -> None:
    (data / "val" / "green" / "1.png").rename(data / "val" / "green" / "x.png")


def repaint_one(data: Path) -> None:
    """Another photo of the same name."""
    Image.new("RGB", (40, 36), "white").save(data / "train" / "red" / "2.png")


def change_class(data: Path) -> None:
    (data / "train" / "red" / "2.png").rename(data / "train" / "green" / "2b.png")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (remove_one, "31 training images in place of 32"),
        (rename_one, "9 validation images, of other names, order or sizes"),
        (repaint_one, "32 training images, of other names, order or sizes"),
        (change_class, "32 training images, of other names, order or sizes"),
    ],
)
def test_other_data_of_the_same_classes_is_refused_unless_allowed(
    change, says, recipe, photos, stopped, tmp_path, capsys
):
    data = tmp_path / "photos"
    shutil.copytree(photos, data)
    change(data)
    before = (stopped / "last.ckpt").read_bytes()
    with pytest.raises(
        ValueError, match=f"last.ckpt is of other data: {says}; give it the same, or --allow-other-data"
    ):
        train(recipe, data, stopped, RESUME)
    assert (stopped / "last.ckpt").read_bytes() == before
    assert train(recipe, data, stopped, ALLOWED).epochs == 2
    assert says in capsys.readouterr().err
    train(recipe, data, stopped, RESUME)  # these are its data now


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (("red", "green", "blue", "grey"), "4 classes in place of 3, with grey"),
        (("red", "green"), "2 classes in place of 3, without blue"),
        (("red", "green", "blau"), "its classes are others, without blue and with blau"),
    ],
)
@pytest.mark.parametrize("settings", [RESUME, ALLOWED])
def test_other_classes_are_always_refused(classes, says, settings, recipe, photos, stopped, tmp_path):
    data = tmp_path / "photos"
    for split in ("train", "val"):
        for name in classes:
            known = photos / split / name
            shutil.copytree(known if known.exists() else photos / split / "blue", data / split / name)
    with pytest.raises(ValueError, match=f"last.ckpt is of other data: {says}; its outputs bear those names"):
        train(recipe, data, stopped, settings)


def test_data_that_moved_are_the_same(recipe, photos, stopped, whole, tmp_path):
    shutil.copytree(photos, tmp_path / "elsewhere")
    assert train(recipe, tmp_path / "elsewhere", stopped, RESUME).last_results == whole[1].last_results


def test_a_state_of_an_earlier_version_is_taken_with_a_warning(recipe, photos, stopped, whole, capsys):
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    for name in ("data", "spent", "logged"):  # it had none of these
        del state[name]
    torch.save(state, stopped / "last.ckpt")
    assert train(recipe, photos, stopped, RESUME).best == whole[1].best
    assert "last.ckpt does not say which data it is of" in capsys.readouterr().err
    assert rows(stopped / "train.csv") == rows(whole[0] / "train.csv")


def test_fingerprints_of_samples_that_are_no_files_of_their_own():
    class Members:
        def __init__(self, *names: str) -> None:
            self.names = names

        def __len__(self) -> int:
            return len(self.names)

        def path(self, index: int) -> str:
            return self.names[index]

    one = fingerprint(Members("https://a/train-0.tar:1.jpg", "https://a/train-1.tar:2.jpg"))
    assert one == fingerprint(Members("https://bc/x/train-0.tar:1.jpg", "https://bc/x/train-1.tar:2.jpg"))
    others = [
        fingerprint(Members(*names))
        for names in ((), ("a/1",), ("a/train-1.tar:2.jpg", "a/train-0.tar:1.jpg"), ("a/train-0.tar:1.jpg",))
    ]
    assert len({one, *others}) == 5 or (others[1] == others[3] and len({one, *others}) == 4)


def test_labels_count_where_they_are_known(photos):
    """Of shards and annotation files, whose names say nothing of the classes."""
    samples = ImageFolder(photos, "train", eval_transform())
    before = fingerprint(samples)
    targets = list(samples.reader.targets)
    samples.reader = replace(samples.reader, targets=[*targets[:-1], targets[0]])
    assert before != fingerprint(samples)
    samples.reader = replace(samples.reader, targets=targets)
    assert before == fingerprint(samples)


def test_a_large_set_is_told_by_every_name(photos, monkeypatch):
    monkeypatch.setattr("elastic_cnn.data.fingerprint.SIZED", 4)
    samples = ImageFolder(photos, "train", eval_transform())
    names = [samples.path(index) for index in range(len(samples))]
    found = {fingerprint(samples)}
    for number, name in enumerate(names):
        other = [*names[:number], f"{name}x", *names[number + 1 :]]
        monkeypatch.setattr(samples, "path", other.__getitem__)
        found.add(fingerprint(samples))
    assert len(found) == len(names) + 1


def change(path: Path, alter: Callable[[dict], Any]) -> None:
    state = torch.load(path, weights_only=True)
    alter(state)
    torch.save(state, path)


def first(values: dict) -> str:
    return next(iter(values))


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda s: s["progress"].update(step=99), "99 steps into epoch 2, beyond the end of a run of 2 epochs of 4"),
        (lambda s: s["progress"].update(epoch=2), "4 steps into epoch 3, beyond the end"),
        (lambda s: s["progress"].update(epoch=7, step=0), "0 steps into epoch 8, beyond the end"),
        (lambda s: s["progress"].update(epoch=-1), "no whole numbers"),
        (lambda s: s["progress"].update(step=1.5), "no whole numbers"),
        (lambda s: s["progress"].pop("pending"), "progress or results"),
        (lambda s: s.pop("optimizer"), "its part 'optimizer' is missing"),
        (lambda s: s.update(task=[1, 2]), "its part 'task' is missing or of another kind"),
        (lambda s: s.update(rows={"train": "x"}), "no whole numbers"),
        (lambda s: s.update(results={"top1": torch.ones(1)}), "progress or results"),
        (lambda s: s["keeper"].update(best="high"), "progress or results"),
        (lambda s: s.update(keeper={}), "progress or results"),
        (lambda s: s.update(ema=None), "Error"),
        (lambda s: s["task"].pop(first(s["task"])), "Missing key"),
        (lambda s: s["task"].update(more=torch.ones(2)), "Unexpected key"),
        (lambda s: s["task"].update({"network.fc.weight": torch.ones(3)}), "size mismatch"),
        (lambda s: s["optimizer"].update(param_groups=[]), "Error"),
        (lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.ones(1, 2, 3, 4)), "for other weights"),
        (lambda s: s.update(data={"classes": 3}), "what it says of its data"),
        (lambda s: s.update(spent=[]), "Error"),
        (lambda s: (s.update(data=[1]), s["progress"].update(step=5)), "beyond the end"),
    ],
)
def test_a_whole_file_of_wrong_things_is_refused(alter, says, recipe, photos, stopped):
    change(stopped / "last.ckpt", alter)
    with pytest.raises(
        ValueError, match=r"last\.ckpt holds no state of this run \(.*remove it, and --resume"
    ) as caught:
        train(recipe, photos, stopped, RESUME)
    assert says in str(caught.value)


HOLD = """\
import os, sys, time
sys.path.insert(0, sys.argv[1])
from files import locked
with locked(sys.argv[2]) as holder:
    reader = os.fork()  # as processes that read images are started
    if reader:
        print(holder, reader, flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_by_name(recipe, photos, stopped):
    """And it holds the folder no longer than it lives, though processes that it started may outlive it."""
    arguments = [sys.executable, "-c", HOLD, Path(files.__file__).parent, stopped / ".lock"]
    other = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    holder, reader = other.stdout.readline().split()
    assert holder == "None"
    try:
        before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
        for settings in (RESUME, Settings(accelerator="cpu", overwrite=True)):
            with pytest.raises(ValueError, match=f"is being trained in by process {other.pid} on .*: wait for its end"):
                train(recipe, photos, stopped, settings)
        assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
        other.kill()
        other.wait()
        train(recipe, photos, stopped, RESUME)
        os.kill(int(reader), signal.SIGKILL)  # it has lived until here
    finally:
        other.kill()
        other.communicate()
    assert not (stopped / ".lock").exists()


@pytest.mark.parametrize(
    ("method", "call", "every"),
    [
        ("training_step", 4, 0),  # nothing was saved: it begins anew
        ("validation_step", 2, 1),  # the state before a validation
        ("training_step", 5, 0),  # the state after one
        ("training_step", 7, 4),
    ],
)
def test_tensorboard_tells_everything_once(method, call, every, recipe, photos, whole, tmp_path, monkeypatch):
    """Also where the kill came before it had written what the CSV files hold, and within one second of the start."""
    settings = Settings(accelerator="cpu", checkpoint_every=every)
    with monkeypatch.context() as patch:
        crash_at(patch, Classification, method, call)
        with pytest.raises(Killed):
            train(recipe, photos, tmp_path / "killed", settings)
    for unwritten in (False, True):
        out = tmp_path / f"run{unwritten}"
        shutil.copytree(tmp_path / "killed", out)
        if unwritten:
            for path in (out / "tensorboard").iterdir():
                path.write_bytes(path.read_bytes()[:-70])
        with monkeypatch.context() as patch:
            crash_at(patch, RunFolder, "save_state", 2)
            with pytest.raises(Killed):
                train(recipe, photos, out, RESUME)
        train(recipe, photos, out, RESUME)
        assert scalars(out) == scalars(whole[0]) == logged(out)


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, but for speeds."""
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars(tag)]
        for tag in sorted(events.Tags()["scalars"])
        if "images_per_s" not in tag
    }


def logged(out: Path) -> dict[str, list[tuple[int, float]]]:
    """The same, from the CSV files."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name in ("train", "val"):
        for row in rows(out / f"{name}.csv"):
            for key in sorted(set(row) - {"epoch", "step"}):
                found.setdefault(f"{name}/{key}", []).append((int(row["step"]), float(row[key])))
    return found


def test_a_log_that_was_cut_removed_or_replaced_is_noticed(recipe, photos, stopped, whole, capsys):
    log = stopped / "train.csv"
    lines = log.read_text().splitlines(keepends=True)
    state = (stopped / "last.ckpt").read_bytes()
    for content, lost in (
        ("".join(lines[:3]), 2),
        ("".join(lines[:3]) + lines[3][:5], 2),  # in the middle of a line
        (None, 4),
        ("name,age\nx,3\ny,4\n", 4),
        ("\0\0\0", 4),
        ("".join(lines[:2] + [line.replace(",", ",9", 2) for line in lines[2:]]), 3),  # steps beyond the state
    ):
        log.unlink(missing_ok=True)
        if content is not None:
            log.write_text(content)
        (stopped / "last.ckpt").write_bytes(state)
        train(recipe, photos, stopped, RESUME)
        assert f"train.csv lacks {lost} of the 4 rows that were written" in capsys.readouterr().err
        assert len(rows(log) if log.exists() else []) == 4 - lost
    assert scalars(stopped) == scalars(whole[0])  # what it held in these rows stays


def test_rows_that_nobody_lost_are_no_reason_to_warn(tmp_path):
    with RunLog(RunFolder(tmp_path)) as log:
        for step in range(1, 5):
            log.append("train", 1, step, {"loss": 1.0})
    told: list[str] = []
    with RunLog(RunFolder(tmp_path), {"train": Logged(3, 3)}, told.append) as log:
        assert log.rows() == {"train": 3, "val": 0}
    assert told == []


def test_a_run_resumed_after_its_end_tells_the_same_as_before(recipe, photos, whole, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    before = json.loads((out / "summary.json").read_text())
    again: Summary = train(recipe, photos, out, RESUME)
    after = json.loads((out / "summary.json").read_text())
    assert {**after, "files": 0} == {**before, "files": 0}
    assert again.seconds > 0
    assert "has come to its end already, after step 8" in capsys.readouterr().out
