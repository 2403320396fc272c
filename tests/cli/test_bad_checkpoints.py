"""Checkpoints as they come from elsewhere, through every command that takes one: one line that names the file."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bad_runs import Shell
from PIL import Image
from safetensors.torch import load_file, save_file

import elastic_cnn
from elastic_cnn.zoo.checkpoint import METADATA_KEY, InputSpec, NetworkCard, save_checkpoint

NARROW = {"channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1], "num_classes": 2}
CARD = NetworkCard("resnext_small_elastic", NARROW, classes=("dark", "light"), input=InputSpec(size=(32, 32)))
COMMANDS = {
    "eval": ("eval", "{net}", "--data", "{tiny}/photos", "--workers", "0"),
    "predict": ("predict", "{net}", "{photo}"),
    "policy": ("policy", "{net}", "--data", "{tiny}/photos", "-o", "{out}/p", "--workers", "0", "--no-figures"),
    "policy --against": (
        *("policy", "{good}", "--against", "{net}", "--data", "{tiny}/photos", "-o", "{out}/p", "--workers", "0"),
        "--no-figures",
    ),
    "stress": ("stress", "{net}", "--data", "{tiny}/photos", "--sizes", "32", "--workers", "0"),
    "segment": ("segment", "{net}", "{photo}", "-o", "{out}/s"),
    "recalibrate": ("recalibrate", "{net}", "--data", "{tiny}/photos", "-o", "{out}/r.safetensors"),
    "summary": ("summary", "{net}"),
    "elasticize": ("elasticize", "{net}", "-o", "{out}/e.safetensors"),
    "export": ("export", "{net}", "--format", "pt2"),
    "benchmark": ("benchmark", "{net}", "-o", "{out}/b.json"),
    "benchmark --against": ("benchmark", "{good}", "--against", "{net}", "-o", "{out}/b.json"),
    "explore --serve": ("explore", "--checkpoint", "{net}", "--serve", "--port", "0"),
    "train weights": (
        *("train", "{tiny}/tiny.yaml", "--data", "{tiny}/photos", "-o", "{out}/t", "--workers", "0"),
        "weights={net}",
    ),
}
NO_CARD_NEEDED = {"train weights"}  # takes bare weights too


class Marks:
    """Its pickle makes a file when it is loaded: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def changed_card(path: Path, **changes: object) -> Path:
    """The good checkpoint under a card with other values; None leaves one out."""
    network = elastic_cnn.create_model("resnext_small_elastic", **NARROW)
    card = {**json.loads(CARD.to_json()), **changes}
    card = {key: value for key, value in card.items() if value is not None}
    save_file(network.state_dict(), path, metadata={METADATA_KEY: json.dumps(card)})
    return path


def write_bad(kind: str, path: Path, good: Path) -> Path:
    """A checkpoint that is bad in one way."""
    content = good.read_bytes()
    state = load_file(good)
    card = {METADATA_KEY: CARD.to_json()}
    if kind == "missing":
        return path.with_name("nowhere.safetensors")
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "head only":
        path.write_bytes(content[:100])
    elif kind == "text":
        path.write_text("<!doctype html>not found")
    elif kind == "endless header":
        path.write_bytes(b"\xff" * 8 + content[8:])
    elif kind == "without card":
        save_file(state, path)
    elif kind == "newer version":
        changed_card(path, version=99)
    elif kind == "no version":
        changed_card(path, version=None)
    elif kind == "unknown field":
        changed_card(path, hyper=1)
    elif kind == "card of wrong types":
        changed_card(path, classes=3, input=[1], kwargs="x")
    elif kind == "input of nonsense":
        changed_card(path, input={"size": ["a", None], "mean": 3})
    elif kind == "unknown network":
        changed_card(path, network="resnext_smal_elastic")
    elif kind == "unknown arguments":
        changed_card(path, kwargs={"number_of_classes": 2})
    elif kind == "another network":
        changed_card(path, kwargs={**NARROW, "channels": [16, 16, 16, 16]})
    elif kind == "another number of classes":
        changed_card(path, kwargs={**NARROW, "num_classes": 5})
    elif kind == "missing tensor":
        del state[next(name for name in state if name.endswith("conv1.weight"))]
        save_file(state, path, metadata=card)
    elif kind in ("nan", "infinite"):
        name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim == 4)
        state[name].view(-1)[3] = float(kind.replace("infinite", "inf"))
        save_file(state, path, metadata=card)
    elif kind == "pickle with code":
        path.write_bytes(pickle.dumps(Marks(path.with_name("code ran"))))
    elif kind == "torch file with code":
        torch.save({"state_dict": Marks(path.with_name("code ran"))}, path)
    return path


KINDS = (
    "missing", "empty", "truncated", "head only", "text", "endless header", "without card", "newer version",
    "no version", "unknown field", "card of wrong types", "input of nonsense", "unknown network", "unknown arguments",
    "another network", "another number of classes", "missing tensor", "nan", "infinite", "pickle with code",
    "torch file with code",
)  # fmt: skip
ABOUT_THE_CARD = KINDS[KINDS.index("without card") : KINDS.index("nan")]  # bare weights do not need it


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    return save_checkpoint(path, elastic_cnn.create_model("resnext_small_elastic", **NARROW), CARD)


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


def words(name: str, net: Path, good: Path, tiny: Path, out: Path) -> list[str]:
    photo = next((tiny / "photos" / "val" / "dark").iterdir())
    return [word.format(net=net, good=good, tiny=tiny, photo=photo, out=out) for word in COMMANDS[name]]


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_refuses_it_in_one_line(kind, good, tiny, tmp_path, shell):
    bad = write_bad(kind, tmp_path / "bad one.safetensors", good)
    for name in COMMANDS:
        if name in NO_CARD_NEEDED and kind in ABOUT_THE_CARD:
            continue
        shell.refuses(*words(name, bad, good, tiny, tmp_path), named=str(bad))
    assert not (tmp_path / "code ran").exists()
    assert not [path for path in tmp_path.iterdir() if path.name not in (bad.name, "t")]  # nothing was begun


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "may be truncated"),
        ("newer version", "version 99, this package reads up to 1: update elastic-cnn"),
        ("unknown network", "resnext_small_elastic"),  # the nearest name
        ("nan", "not finite; take an earlier checkpoint"),
        ("without card", "does not say of which network"),
        ("another number of classes", "names 2 classes for 5 outputs"),
    ],
)
def test_the_line_says_what_to_do(kind, says, good, tiny, tmp_path, shell):
    bad = write_bad(kind, tmp_path / "bad.safetensors", good)
    shell.refuses(*words("predict", bad, good, tiny, tmp_path), named=str(bad), says=says)


def test_code_in_weights_never_runs(good, tiny, tmp_path, shell):
    """As weights to start from, as a released checkpoint, and as the state of a run."""
    for name in ("code.pth", "code.pth.tar", "code.pt"):
        torch.save({"state_dict": Marks(tmp_path / "code ran")}, tmp_path / name)
        begin = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", tmp_path / "run", "--workers", "0")
        shell.refuses(*begin, f"weights={tmp_path / name}", named=name, says="never run")
        shell.refuses("convert", tmp_path / name, tmp_path / "out.safetensors", named=name)
        (tmp_path / name).write_bytes(pickle.dumps(Marks(tmp_path / "code ran")))
        shell.refuses(*begin, f"weights={tmp_path / name}", named=name, says="never run")
        shell.refuses("convert", tmp_path / name, tmp_path / "out.safetensors", named=name)
    run = tmp_path / "resumed"
    begin = ("train", tiny / "tiny.yaml", "--data", tiny / "photos", "-o", run, "--workers", "0")
    assert shell.run(*begin) == 0
    for content in (pickle.dumps(Marks(tmp_path / "code ran")), None):
        for name in ("last.ckpt", "previous.ckpt"):
            (run / name).unlink(missing_ok=True)
            torch.save(Marks(tmp_path / "code ran"), run / name) if content is None else (run / name).write_bytes(
                content
            )
        shell.refuses(*begin, "--resume", named="last.ckpt", says="no whole state")
    assert not (tmp_path / "code ran").exists()


def test_data_of_other_classes_names_them(good, tiny, tmp_path, shell):
    other = tmp_path / "photos"
    for name in ("dark", "light", "grey"):
        (other / "val" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(other / "val" / name / "1.png")
    line = shell.refuses("eval", good, "--data", other, "--workers", "0", named=str(other), says="holds 'grey'")
    assert "which the 2 classes to choose from lack ('dark', 'light')" in line


def test_a_network_for_another_job_says_so(good, tiny, tmp_path, shell):
    shell.refuses(*words("segment", good, good, tiny, tmp_path), named=str(good))
    many = tmp_path / "many.safetensors"
    save_checkpoint(many, elastic_cnn.create_model("resnext_small_elastic", **NARROW), replace(CARD, task="multilabel"))
    shell.refuses(*words("eval", many, good, tiny, tmp_path), named=str(tiny / "photos"))
    shell.refuses(*words("policy --against", many, good, tiny, tmp_path), named=str(many), says="is for multilabel")
