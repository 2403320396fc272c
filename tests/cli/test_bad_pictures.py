"""Odd and broken pictures through every command that reads pictures: read, or left out and counted, or refused."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bad_files import bad_pictures, good_pictures, write_files
from bad_runs import Shell
from safetensors.torch import load_file

import elastic_cnn
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint

NARROW = {"channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}
RECIPE = """\
network: resnext_small_elastic
network_kwargs: {channels: [8, 8, 8, 8], layers: [2, 2, 1, 1]}
image_size: 32
epochs: 1
batch_size: 13
optimizer: {lr: 0.01}
"""
GOOD, BAD = good_pictures(), bad_pictures()


def checkpoint_of(path: Path, classes: tuple[str, ...] = ("bad", "good"), task: str = "classification") -> Path:
    """A narrow, untrained elastic network."""
    torch.manual_seed(0)
    kwargs = {**NARROW, "num_classes": len(classes)}
    card = NetworkCard("resnext_small_elastic", kwargs, task, classes, InputSpec(size=(32, 32)))
    return save_checkpoint(path, elastic_cnn.create_model("resnext_small_elastic", **kwargs), card)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photos/{train,val}/{good,bad}`: every odd picture, and every broken one beside a good one."""
    root = tmp_path_factory.mktemp("pictures")
    for split in ("train", "val"):
        write_files(root / "photos" / split / "good", GOOD.items())
        write_files(root / "photos" / split / "bad", [(name, content) for name, (content, _) in BAD.items()])
        write_files(root / "photos" / split / "bad", [(b"ok.png", GOOD[b"turned.jpg"])])
    (root / "tiny.yaml").write_text(RECIPE)
    return SimpleNamespace(root=root, photos=root / "photos", net=checkpoint_of(root / "net.safetensors"))


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


def paths(place, names, part: str) -> list[str]:
    folder = os.fsencode(place.photos / "val" / part)
    return [os.fsdecode(os.path.join(folder, name)) for name in names]


COMMANDS = {
    "eval": ("eval", "{net}", "--data", "{photos}", "--workers", "0"),
    "train": ("train", "{root}/tiny.yaml", "--data", "{photos}", "-o", "{out}/run", "--workers", "0"),
    "policy": ("policy", "{net}", "--data", "{photos}", "-o", "{out}/policy", "--workers", "0", "--no-figures"),
    "stress": ("stress", "{net}", "--data", "{photos}", "--sizes", "32", "--workers", "0"),
    "recalibrate": ("recalibrate", "{net}", "--data", "{photos}", "-o", "{out}/new.safetensors"),
}


def command(name: str, place, out: Path) -> list[str]:
    return [word.format(net=place.net, photos=place.photos, root=place.root, out=out) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_broken_pictures_are_left_out_with_a_warning_each_and_counted(name, place, shell, tmp_path):
    assert shell.run(*command(name, place, tmp_path)) == 0
    warnings = [line for line in shell.err.splitlines() if line.startswith("elastic: warning: left out: ")]
    splits = 2 if name == "train" else 1
    assert len(warnings) == splits * len(BAD)
    for file, (_, says) in BAD.items():
        shown = " ".join(
            os.fsdecode(file).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").split()
        )
        assert sum(f"/bad/{shown} " in line and says in line for line in warnings) == splits, shown
    assert not any("/good/" in line for line in warnings)
    if name != "stress":
        assert f"{splits * len(BAD)} unreadable" in shell.out
    else:
        assert f"{len(GOOD) + 1} images" in shell.out


@pytest.mark.parametrize("name", ["eval", "train", "policy", "recalibrate"])
def test_strict_refuses_the_first_broken_picture(name, place, shell, tmp_path):
    shell.refuses(*command(name, place, tmp_path), "--strict", named=f"{place.photos}", says="cannot be read")


def test_predict_answers_for_the_good_and_names_the_broken(place, shell):
    good, bad = paths(place, GOOD, "good"), paths(place, BAD, "bad")
    assert shell.run("predict", place.net, *good, *bad, "--json") == 2
    answers = json.loads(shell.out)
    assert [("error" in answer) for answer in answers] == [False] * len(good) + [True] * len(bad)
    for answer, (_, says) in zip(answers[len(good) :], BAD.values(), strict=True):
        assert says.removeprefix("cannot be read") in answer["error"]
    errors = [line for line in shell.err.splitlines() if "elastic: error" in line]
    assert len(errors) == 1
    assert f"{len(bad)} of {len(good) + len(bad)} images cannot be read" in errors[0]


def test_segment_colours_the_good_and_names_the_broken(place, shell, tmp_path):
    torch.manual_seed(0)
    kwargs = {"backbone": "resnext_small_elastic", **NARROW, "layers": [2, 1, 1, 3], "num_classes": 2}
    card = NetworkCard("deeplabv3", kwargs, "segmentation", ("a", "b"), InputSpec(size=(32, 32)))
    net = save_checkpoint(tmp_path / "seg.safetensors", elastic_cnn.create_model("deeplabv3", **kwargs), card)
    good, bad = paths(place, [b"grey16.png", b"cmyk.jpg", b"turned.jpg"], "good"), paths(place, BAD, "bad")
    assert shell.run("segment", net, *good, *bad, "-o", tmp_path / "out") == 2
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == len(good)
    lines = [line for line in shell.err.splitlines() if line.startswith("elastic: error: ")]
    assert len(lines) == len(bad) + 1
    assert f"{len(bad)} photo(s) cannot be read" in lines[-1]


def test_recalibrate_with_broken_pictures_equals_recalibrate_without_them(place, shell, tmp_path):
    """The photos that are left, drawn in another order: the means over one batch of all of them are the same."""
    good = tmp_path / "photos"
    write_files(good / "train" / "good", GOOD.items())
    write_files(good / "train" / "bad", [(b"ok.png", GOOD[b"turned.jpg"])])
    found = []
    for name, photos in (("with", place.photos), ("without", good)):
        out = tmp_path / f"{name}.safetensors"
        assert shell.run("recalibrate", place.net, "--data", photos, "-o", out) == 0
        assert f"on {len(GOOD) + 1} photos" in shell.out
        found.append(load_file(out))
        assert (f"{len(BAD)} unreadable left out" in shell.out) == (name == "with")
    moved = [name for name, tensor in found[0].items() if not torch.equal(tensor, load_file(place.net)[name])]
    assert any("running_mean" in name for name in moved)
    for name in moved:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)  # sums in another order


def test_recalibrate_refuses_what_it_cannot_do(place, shell, tmp_path):
    out = tmp_path / "new.safetensors"
    command = ("recalibrate", place.net, "--data", place.photos, "-o")
    shell.refuses(*command, tmp_path / "new.pth", named="new.pth", says="must end in .safetensors")
    shell.refuses(*command, out, "--batch-size", "1", "--images", "30", named="--batch-size 1", says="one photo alone")
    broken = tmp_path / "photos"
    write_files(broken / "train" / "a", [(name, content) for name, (content, _) in BAD.items()])
    shell.refuses(*command[:3], broken, "-o", out, named=str(broken), says=f"none of the {len(BAD)} photos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_explorer_and_figures_count_photos_that_went_bad(place, shell, tmp_path):
    assert shell.run(*command("policy", place, tmp_path)) == 0
    moved = tmp_path / "moved"
    write_files(moved / "val" / "good", GOOD.items())
    write_files(moved / "val" / "good", [(name, b"broken since") for name in list(GOOD)[:5]])
    assert shell.run("explore", tmp_path / "policy", "--photos", moved, "-o", tmp_path / "explorer") == 0
    reasons = [line for line in shell.err.splitlines() if line.startswith("warning: ")]
    assert [int(line.split()[1]) for line in reasons], shell.err
    assert shell.run("figures", tmp_path / "policy", "--data", moved, "-o", tmp_path / "figures") == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_links_that_loop_are_refused(name, place, shell, tmp_path):
    looping = tmp_path / "photos"
    for split in ("train", "val"):
        write_files(looping / split / "good", GOOD.items())
        (looping / split / "good" / "again").symlink_to(looping / split)
    words = [str(looping) if word == str(place.photos) else word for word in command(name, place, tmp_path)]
    shell.refuses(*words, named="good/again", says="is a link to a folder that holds it")


@pytest.mark.parametrize("name", COMMANDS)
def test_data_that_is_not_there_or_empty(name, place, shell, tmp_path):
    words = command(name, place, tmp_path)
    at = words.index("--data") + 1
    for data, says in ((tmp_path / "nothing", "there is no folder"), (place.net, "is not a folder")):
        words[at] = str(data)
        shell.refuses(*words, named=str(data), says=says)
    for split in ("train", "val"):
        (tmp_path / "empty" / split / "class").mkdir(parents=True)
    words[at] = str(tmp_path / "empty")
    shell.refuses(*words, named=str(tmp_path / "empty"), says="holds no images")
