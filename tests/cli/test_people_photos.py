"""Folders and photos as people have them, through the commands: said, left out and counted, or refused in a line."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from bad_files import encoded, photo
from bad_runs import Shell
from PIL import Image
from test_bad_pictures import RECIPE, checkpoint_of

from elastic_cnn.zoo.checkpoint import InputSpec, read_card

LEFT_OUT = {"dead.png": "a link that leads nowhere", "pipe.png": "no regular file", "long.png": "1000 times the other"}
RED, GREEN, DOG = "red", "green", "\N{CJK UNIFIED IDEOGRAPH-72AC}"
COLOURS = {RED: (200, 40, 40), GREEN: (40, 180, 60), DOG: (50, 60, 200)}


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


def fill(folder: Path, colour: str, count: int, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(folder.as_posix().encode()))
    for number in range(count):
        pixels = np.clip(COLOURS[colour] + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
        kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(ending, ending)
        Image.fromarray(pixels).save(folder / f"{number}.{ending}", kind)


def photos_of(root: Path, *classes: str, train: int = 4, val: int = 2) -> Path:
    for name in classes or (RED, GREEN):
        fill(root / "train" / name, name, train)
        fill(root / "val" / name, name, val)
    return root


@pytest.fixture(scope="module")
def messy(tmp_path_factory) -> Path:
    """Three classes, with what macOS, Windows, Jupyter, browsers and accidents leave in folders."""
    root = photos_of(tmp_path_factory.mktemp("messy") / "data", RED, GREEN)
    for split in ("train", "val"):
        fill(root / split / DOG, DOG, 2, "jfif")
        fill(root / split / DOG, DOG, 1, "jpe")
        red = root / split / RED
        (red / ".ipynb_checkpoints").mkdir()
        (red / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes((red / "0.png").read_bytes())
        (red / "._0.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
        (root / split / "__MACOSX" / RED).mkdir(parents=True)
        (root / split / "__MACOSX" / RED / "._0.png").write_bytes(b"\0\5\26\7")
        for name in (".DS_Store", "Thumbs.db", "notes.txt"):
            (red / name).write_bytes(b"x")
        (red / "dead.png").symlink_to(root / "gone.png")
        os.mkfifo(red / "pipe.png")
        (red / "long.png").write_bytes(encoded(Image.new("1", (1, 1_000_000)), "PNG"))
    return root


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    return checkpoint_of(tmp_path_factory.mktemp("net") / "net.safetensors", (GREEN, RED, DOG))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE.replace("batch_size: 13", "batch_size: 2"))
    return path


WORDS = {
    "train": ("train", "{recipe}", "--data", "{data}", "-o", "{out}/run", "--workers", "0"),
    "eval": ("eval", "{net}", "--data", "{data}", "--workers", "0"),
    "policy": ("policy", "{net}", "--data", "{data}", "-o", "{out}/policy", "--workers", "0", "--no-figures"),
    "recalibrate": ("recalibrate", "{net}", "--data", "{data}", "-o", "{out}/new.safetensors"),
}


def words(name: str, data: Path, net: Path, recipe: Path, out: Path) -> list[str]:
    return [word.format(data=data, net=net, recipe=recipe, out=out) for word in WORDS[name]]


@pytest.mark.parametrize("name", WORDS)
def test_a_messy_folder_is_read_the_same_way_by_every_command(name, messy, net, recipe, shell, tmp_path):
    assert shell.run(*words(name, messy, net, recipe, tmp_path), *(["batch_size=7"] if name == "train" else [])) == 0
    counts = {"train": f"train: 14 photos in 3 classes (green 4, red 7, {DOG} 3)"}
    counts["val"] = f"val: 10 photos in 3 classes (green 2, red 5, {DOG} 3)"
    said = {"train": ("train", "val"), "eval": ("val",), "policy": ("val",), "recalibrate": ("train",)}[name]
    for split in said:
        line = "train: 14 photos" if name == "recalibrate" else counts[split]
        assert line in shell.out.splitlines()
    notices = [line for line in shell.err.splitlines() if "no images passed over" in line]
    assert len(notices) == len(said)
    assert all(line.endswith("1 files that are no images passed over (1 .txt)") for line in notices)
    left_out = [line for line in shell.err.splitlines() if "left out: " in line]
    assert len(left_out) == 3 * len(said)
    for file, says in LEFT_OUT.items():
        assert sum(f"{RED}/{file} " in line and says in line for line in left_out) == len(said)
    if name == "train":
        summary = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert summary["train_counts"] == {GREEN: 4, RED: 7, DOG: 3}
        assert summary["val_counts"] == {GREEN: 2, RED: 5, DOG: 3}
        assert read_card(tmp_path / "run").classes == (GREEN, RED, DOG)


REFUSED = {
    "a stray picture": (lambda root: fill(root / "train", RED, 1), "train/0.png lies beside the class folders"),
    "a class of files that are not read": (
        lambda root: (root / "train" / "blue").mkdir() or (root / "train" / "blue" / "0.cr2").write_bytes(b"x"),
        "train/blue holds 1 file(s) and no image (1 .cr2)",
    ),
    "the same name twice": (
        lambda root: fill(root / "train" / "more" / RED, RED, 1),
        "the folders more/red and red have the same name",
    ),
    "an unknown class": (lambda root: fill(root / "val" / "blue", RED, 1), "holds 'blue', which the 2 classes"),
    "one class alone": (
        lambda root: [(root / s / GREEN).rename(root / f"old {s}") for s in ("train", "val")],
        "one level off?",
    ),
    "no split for validation": (lambda root: (root / "val").rename(root / "check"), "it holds 'check', 'train'"),
    "no split at all": (
        lambda root: (
            [(root / "train" / c).rename(root / c) for c in (RED, GREEN)]
            and [(root / s).rename(root / f".{s}") for s in ("train", "val")]
        ),
        "it holds 'green', 'red'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_training_refuses_folders_that_would_be_learnt_wrong(what, net, recipe, shell, tmp_path):
    change, says = REFUSED[what]
    data = photos_of(tmp_path / "data")
    change(data)
    shell.refuses(*words("train", data, net, recipe, tmp_path), named=str(data), says=says)
    assert not (tmp_path / "run").exists()


def test_a_class_of_which_nothing_can_be_read_is_told_at_the_end(net, recipe, shell, tmp_path):
    data = photos_of(tmp_path / "data", RED, GREEN, DOG)
    for number in range(4):
        (data / "train" / DOG / f"{number}.png").write_bytes(b"<html>403 Forbidden</html>")
    assert shell.run(*words("train", data, net, recipe, tmp_path), "batch_size=12") == 0
    assert shell.err.count("a web page, perhaps of a download that failed") == 4
    assert f"no photo to train on of '{DOG}' could be read: nothing of it was learnt" in shell.err


def test_classes_from_the_whole_path_travel_with_the_checkpoint(net, recipe, shell, tmp_path):
    data = tmp_path / "data"
    for split in ("train", "val"):
        fill(data / split / "birds" / "owl", RED, 4)
        fill(data / split / "toys" / "owl", GREEN, 4)
    train = words("train", data, net, recipe, tmp_path)
    shell.refuses(*train, named="birds/owl and toys/owl", says="--classes-from path")
    assert shell.run(*train, "--classes-from", "path") == 0
    assert read_card(tmp_path / "run").classes == ("birds/owl", "toys/owl")
    run = tmp_path / "run"
    assert shell.run("eval", run, "--data", data, "--workers", "0") == 0
    assert "val: 8 photos in 2 classes (birds/owl 4, toys/owl 4)" in shell.out
    assert shell.run(*words("policy", data, run, recipe, tmp_path)) == 0
    assert "never right" not in shell.err


def test_a_split_that_lacks_a_class_is_tested_with_a_notice(messy, net, shell, tmp_path):
    data = photos_of(tmp_path / "data", RED)
    (data / "val" / DOG).mkdir()
    assert shell.run("eval", net, "--data", data, "--workers", "0") == 0
    assert f"val lacks 2 of the 3 classes: 'green', '{DOG}'" in shell.err
    assert "no class" not in shell.err
    (data / "val" / "grey").mkdir()
    assert shell.run("eval", net, "--data", data, "--workers", "0") == 0
    assert "val: 'grey' holds no file and is no class" in shell.err


def test_flat_folders_are_predicted_recalibrated_on_and_looked_at(net, recipe, shell, tmp_path):
    flat = tmp_path / "flat"
    fill(flat, RED, 4)
    (flat / "._0.png").write_bytes(b"\0\5\26\7")
    assert shell.run("predict", net, flat, "--json") == 0
    assert [Path(answer["path"]).name for answer in json.loads(shell.out)] == [f"{i}.png" for i in range(4)]
    for name in ("policy", "recalibrate"):
        assert shell.run(*words(name, flat, net, recipe, tmp_path)) == 0
        assert ": 4 photos\n" in shell.out
    shell.refuses(
        "eval", net, "--data", tmp_path, "--split", "flat", named="flat", says="no class folders (0.png, ...)"
    )


def test_what_predict_is_given(net, shell, tmp_path):
    fill(tmp_path / "a" / "b", RED, 2)
    assert shell.run("predict", net, tmp_path / "a" / "*" / "*.png", "--json") == 0
    assert len(json.loads(shell.out)) == 2
    assert shell.run("predict", net, tmp_path / "a", "--json") == 0
    assert len(json.loads(shell.out)) == 2
    shell.refuses("predict", net, tmp_path / "*.jpg", named="*.jpg", says="no file matches")
    shell.refuses("predict", net, "https://example.org/cat.jpg", named="example.org", says="is an address: download")
    (tmp_path / "none").mkdir()
    shell.refuses("predict", net, tmp_path / "none", named="none", says="holds no images")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_output_that_a_terminal_cannot_show_is_escaped(encoding, messy, net, tmp_path, monkeypatch):
    from elastic_cnn.cli import main

    picture = messy / "val" / DOG / "0.jfif"
    for form in ((), ("--json",)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["predict", str(net), str(picture), *form]) == 0
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        assert (DOG in text) == (encoding == "utf-8")
        assert ("\\u72ac" in text) == (encoding != "utf-8")
        if form:
            assert DOG in {entry["class"] for entry in json.loads(text)[0]["classes"]}


def test_names_that_are_not_utf8_go_through_to_the_explorer(net, recipe, shell, tmp_path):
    folder = tmp_path / "data" / "val" / RED
    fill(folder, RED, 2)
    for name in (b"caf\xe9.png", b"\xff\xfe.png", b"back\\x41slash.png"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(encoded(photo(), "PNG"))
    assert shell.run(*words("policy", tmp_path / "data", net, recipe, tmp_path)) == 0
    assert shell.run("explore", tmp_path / "policy", "-o", tmp_path / "explorer") == 0
    assert "cannot be shown" not in shell.err
    assert "5 photos" in shell.out
    assert shell.run("figures", tmp_path / "policy", "--data", tmp_path / "data", "-o", tmp_path / "figures") == 0


@pytest.mark.parametrize(("channels", "kind"), [(1, "png"), (4, "png"), (5, "npy")])
def test_photos_of_other_channels_train_networks_of_as_many(channels, kind, net, recipe, shell, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for level, name in enumerate(("dark", "light")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(120 * level, 120 * level + 100, (36, 40, channels), dtype=np.uint8)
                if kind == "npy":
                    np.save(folder / f"{number}.npy", pixels)
                else:
                    Image.fromarray(pixels.squeeze()).save(folder / f"{number}.png")
    train = words("train", tmp_path / "data", net, recipe, tmp_path)
    assert shell.run(*train, f"network_kwargs.in_chans={channels}") == 0
    run = tmp_path / "run"
    assert len(read_card(run).input.mean) == channels
    picture = tmp_path / "data" / "val" / "dark" / f"0.{kind}"
    assert shell.run("predict", run, picture) == 0
    assert shell.run("eval", run, "--data", tmp_path / "data", "--workers", "0") == 0
    assert shell.run(*words("policy", tmp_path / "data", run, recipe, tmp_path)) == 0
    if channels != 1:
        grey = tmp_path / "grey.png"
        Image.new("L", (20, 20)).save(grey)
        said = f"it has 1 channel(s), the network takes {channels}"
        assert shell.run("predict", run, grey) == 2
        assert said in shell.err
        shell.refuses(*train, "-o", tmp_path / "x", f"network_kwargs.in_chans={channels}", "options.color_jitter=0.4",
                      named="color_jitter", says=f"the network takes {channels}")  # fmt: skip


WRONG_GEOMETRY = {
    "image_size=32x0": "at least 1",
    "image_size=[1,2,3]": "list of 2",
    "image_size=wide": "height and width as 32x128",
    "options.hflip=2": "must lie in 0..1",
    "options.flip=false": "options.hflip?",
    "options.crop_mode=middle": "one of center, border, squash",
    "options.rotation=270": "must lie in 0..180 degrees",
}


def test_the_recipes_geometry_travels_in_the_card(net, recipe, shell, tmp_path):
    data = photos_of(tmp_path / "data")
    geometry = ("image_size=16x64", "options.crop_mode=squash", "options.hflip=0", "options.vflip=0.5",
                "options.rotation=10", "options.max_value=4095", "options.background=[0,0,255]")  # fmt: skip
    assert shell.run(*words("train", data, net, recipe, tmp_path), *geometry) == 0
    spec = read_card(tmp_path / "run").input
    assert spec == InputSpec((16, 64), spec.mean, spec.std, spec.interpolation, 1.0, "squash", 4095.0, (0, 0, 255))
    run = tmp_path / "run"
    assert shell.run("predict", run, data / "val" / RED / "0.png", "--json") == 0
    block = json.loads(shell.out)[0]["policy"][0]
    assert block["width"] == 4 * block["height"]
    assert shell.run("eval", run, "--data", data, "--workers", "0", "--image-size", "8x32") == 0
    assert shell.run(*words("policy", data, run, recipe, tmp_path)) == 0
    assert shell.run(*words("recalibrate", data, run, recipe, tmp_path)) == 0
    assert read_card(tmp_path / "new.safetensors").input == spec
    assert shell.run("stress", run, "--data", data, "--workers", "0", "--sizes", "8,16") == 0
    train = words("train", data, net, recipe, tmp_path / "no")
    for wrong, says in WRONG_GEOMETRY.items():
        shell.refuses(*train, wrong, named=wrong.partition("=")[0].rpartition(".")[2], says=says)
    for wrong in ("0", "8x", "axb", "1x2x3"):
        shell.refuses("eval", run, "--data", data, "--image-size", wrong, named=f"image_size={wrong}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_mode", "middle"),
        ("max_value", -1),
        ("max_value", "white"),
        ("background", (1, 2)),
        ("background", (0, 0, 256)),
    ],
)
def test_cards_with_other_geometry_are_refused(name, value):
    with pytest.raises(ValueError, match=f"the input's {name} must be"):
        InputSpec(**{name: value})
