"""`elastic convert`: a released file becomes a checkpoint of this package; nothing that the file holds is executed."""

import argparse
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from elastic_cnn import create_model, load_checkpoint
from elastic_cnn.cli import main
from elastic_cnn.zoo.released.convert import convert, make_card
from elastic_cnn.zoo.released.reading import read_released

sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
import released_code

LEVELS, CHANNELS = (1, 1, 1, 2, 3, 1), (16, 32, 128, 256, 512, 1024)
FORBIDDEN = ("GLOBAL", "posix.system")


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dla60x(images):
    """(the tensors of the released DLA-X60 of five classes, its logits for `images`)"""
    tensors = released_code.Tensors()
    with torch.no_grad():
        logits = released_code.dla(tensors, images, LEVELS, CHANNELS, 5)
    return tensors.state, logits


@pytest.fixture
def released(tmp_path, dla60x):
    """Such a file as the released training script writes, with what weights_only loading does not know by itself."""
    path = tmp_path / "dla60x.pth.tar"
    content = {
        "epoch": 120,
        "arch": "dla60x",
        "state_dict": {f"module.{name}": tensor for name, tensor in dla60x[0].items()},
        "best_prec1": np.float64(78.08),
        "args": argparse.Namespace(lr=0.1, arch="dla60x"),
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def error_of(capsys, arguments):
    """Exit code 2 and one line on stderr; the line."""
    assert main(["convert", *map(str, arguments)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    return err[0]


def test_the_checkpoint_loads_and_gives_the_released_numbers(tmp_path, released, dla60x, images, capsys):
    out = tmp_path / "dla60x.safetensors"
    assert main(["convert", str(released), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "dla60x (classification, 5 classes)" in printed
    assert "ignored 18 tensors" in printed
    assert "level4.tree1.project.0" in printed
    network, card = load_checkpoint(out)
    assert (card.network, card.kwargs, len(card.classes)) == ("dla60x", {"num_classes": 5}, 5)
    assert card.info == {"converted_from": "dla60x.pth.tar", "epochs": 120}
    with torch.no_grad():
        logits = network(images)
    assert (logits - dla60x[1]).abs().max() <= 1e-5 * dla60x[1].abs().max()
    create_model("dla60x", num_classes=5).load_state_dict(network.state_dict(), strict=True)

    assert "exists already" in error_of(capsys, [released, out])
    assert main(["convert", str(released), str(out), "--overwrite"]) == 0
    assert "not of 'resnext50'" in error_of(capsys, [released, tmp_path / "b.safetensors", "--network", "resnext50"])


def test_the_checkpoint_s_arch_or_the_user_chooses_between_a_base_and_its_selastic(tmp_path):
    tensors = released_code.Tensors()
    with torch.no_grad():
        released_code.resnext(tensors, torch.randn(1, 3, 32, 32), (3, 4, 6, 3), (64, 128, 256, 512), 3)
    file, out = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"state_dict": tensors.state, "arch": "resnext50_selastic"}, file)
    assert convert(file, out).card.network == "resnext50_selastic"
    assert convert(file, out, network="resnext50", overwrite=True).card.network == "resnext50"
    torch.save(tensors.state, file)
    conversion = convert(file, out, overwrite=True)
    assert conversion.card.network == "resnext50"
    assert "also those of resnext50_selastic: choose it by --network" in str(conversion)


class Command:
    """Unpickled without care, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_are_never_executed(tmp_path, capsys, legacy):
    trace, file = tmp_path / "trace", tmp_path / "evil.pth.tar"
    content = {"state_dict": {"a": torch.zeros(1)}, "x": Command(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    message = error_of(capsys, [file, tmp_path / "out.safetensors"])
    assert "is refused" in message
    assert all(word in message for word in FORBIDDEN)
    file.write_bytes(pickle.dumps(content))
    assert str(file) in error_of(capsys, [file, tmp_path / "out.safetensors"])
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_bad_files_are_refused_by_name(tmp_path, released, dla60x, capsys):
    out = tmp_path / "out.safetensors"
    assert "no file at" in error_of(capsys, [tmp_path / "absent.pth", out])
    assert "must end in .safetensors" in error_of(capsys, [released, tmp_path / "out.pth"])
    whole = released.read_bytes()
    for content in (b"", b"text", whole[:5000], whole[: len(whole) // 2]):
        file = tmp_path / "broken.pth.tar"
        file.write_bytes(content)
        assert f"{file}" in error_of(capsys, [file, out])
    state = dict(dla60x[0])
    for change, words in (
        ({"fc.bias": torch.full((5,), torch.nan)}, "fc.bias holds values that are not finite"),
        ({"fc.bias": torch.zeros(6)}, "fc.bias is (6,) instead of (5,)"),
        ({"level2.tree1.conv5.weight": torch.zeros(1)}, "left over: level2.tree1.conv5.weight"),
    ):
        torch.save({**state, **change}, tmp_path / "changed.pth")
        message = error_of(capsys, [tmp_path / "changed.pth", out])
        assert words in message
        assert message.count("changed.pth") == 1
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds a list" in error_of(capsys, [tmp_path / "list.pth", out])
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "classes", "task", "size", "crop_mode", "first", "last"),
    [
        ("resnext50", 1000, "classification", (224, 224), "center", "n01440764", "n15075141"),
        ("dla60x", 80, "multilabel", (224, 224), "squash", "person", "toothbrush"),
        ("deeplabv3_resnext50", 21, "segmentation", (513, 513), "center", "background", "tvmonitor"),
        ("dla60x_seg", 21, "segmentation", (513, 513), "center", "background", "tvmonitor"),
        ("resnext50", 7, "classification", (224, 224), "center", "0", "6"),
    ],
)
def test_the_card_tells_the_job(name, classes, task, size, crop_mode, first, last):
    card = make_card(name, classes, Path("x.pth.tar"), {})
    assert (card.task, card.input.size, card.input.crop_mode) == (task, size, crop_mode)
    assert len(card.classes) == classes
    assert (card.classes[0], card.classes[-1]) == (first, last)
    json.loads(card.to_json())


def test_help_tells_the_arguments(capsys):
    assert main(["convert", "--help"]) == 0
    assert "--network" in capsys.readouterr().out


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_was_cut_anywhere_is_refused(tmp_path, legacy):
    file = tmp_path / "cut.pth"
    torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(4)}}, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    for length in range(0, len(whole), 1 if legacy else 7):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pth (is not a readable checkpoint|is refused)"):
            read_released(file)


def test_the_file_to_write_may_be_an_option(released, tmp_path, capsys):
    assert main(["convert", str(released), "-o", str(tmp_path / "a.safetensors")]) == 0
    assert main(["convert", str(released), str(tmp_path / "b.safetensors")]) == 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    capsys.readouterr()
    for names in ([], [tmp_path / "c.safetensors", "-o", tmp_path / "d.safetensors"]):
        assert "name one file to write" in error_of(capsys, [released, *names])
    assert not list(tmp_path.glob("[cd].safetensors"))
