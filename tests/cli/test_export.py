"""`elastic export`: what it prints, and one line and exit code 2 for bad input."""

import pytest
import torch

from elastic_cnn import save_checkpoint
from elastic_cnn.cli import main, make_parser
from elastic_cnn.export.formats import FORMATS
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

KWARGS = {"num_classes": 4, "stem_width": 8, "channels": [8, 8, 16, 16]}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    torch.manual_seed(0)
    card = NetworkCard("resnet10t", KWARGS, "multilabel", ("a", "b", "c", "d"), InputSpec((40, 40)))
    return save_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors", card.build(), card).parent


def test_writes_beside_the_checkpoint_and_says_what_was_checked(run_folder, capsys):
    assert main(["export", str(run_folder), "--format", "pt2", "--overwrite"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"wrote {run_folder / 'best.pt2'} (")
    assert lines[0].endswith("any batch; any height and width from 33 up")
    assert [line.split(":")[0].split()[-1] for line in lines[1:-1]] == [
        "1x3x40x40",
        "2x3x40x40",
        "1x3x33x51",
        "2x3x33x51",
    ]
    assert lines[-1] == f"next: elastic serve {run_folder}"
    assert (run_folder / "best.pt2").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.safetensors", "--format", "onnx"], "no checkpoint at missing.safetensors"),
        (["RUN"], "name a format (onnx, openvino, pt2"),
        (["RUN", "-o", "net.tflite"], "must end in .onnx, .xml, .pt2"),
        (["RUN", "-o", "net.onnx", "--format", "pt2"], "net.onnx: the file's name must end in .pt2"),
        (["RUN", "--format", "onnx", "--int8"], "--int8 and --images FOLDER go together"),
        (["RUN", "--format", "onnx", "--fixed-size", "-3"], "--fixed-size=-3 must be at least 1"),
        (["RUN", "--format", "pt2", "-o", "x/net.pt2", "--test", "photos"], "top-1 is measured for classification"),
        (["RUN", "-o", "net.onnx", "--int8", "--images", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_input(run_folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *(str(run_folder) if word == "RUN" else word for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint(run_folder, tmp_path, capsys):
    path = tmp_path / "cut.safetensors"
    path.write_bytes((run_folder / "best.safetensors").read_bytes()[:-1000])
    assert main(["export", str(path), "--format", "onnx"]) == 2
    assert "cut.safetensors is not a readable safetensors file" in capsys.readouterr().err


def test_the_help_names_every_format():
    help = make_parser(["export"])._subparsers._group_actions[0].choices["export"].format_help()
    assert [word for name, one in FORMATS.items() for word in (name, one.suffix) if word not in help] == []
