"""`elastic stress`, called as the command line calls it."""

import json

import pytest
import torch
from coco_files import write_coco

from elastic_cnn.cli import main
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint
from elastic_cnn.zoo.factory import create_model

CLASSES = ("white", "green", "red", "blue")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    torch.manual_seed(0)
    kwargs = {"stem_width": 8, "channels": [8, 8, 16, 16], "num_classes": 4}
    card = NetworkCard("resnet10t", kwargs, "multilabel", CLASSES, InputSpec((32, 32), crop_mode="squash"))
    save_checkpoint(folder / "net.safetensors", create_model("resnet10t", **kwargs), card)
    write_coco(folder / "coco", {"val": 9})
    options = ["--accelerator", "cpu", "--workers", "0", "--no-progress"]
    return ["stress", str(folder / "net.safetensors"), "--data", str(folder / "coco"), *options]


def test_prints_the_table_and_writes_the_files(arguments, tmp_path, capsys):
    assert main([*arguments, "--sizes", "24,48", "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "F1 per class" in printed.out
    assert "resnet10t at 48 px" in printed.err
    assert [
        row["size"] for row in json.loads((tmp_path / "out/stress.json").read_text())["networks"][0]["results"]
    ] == [
        24,
        48,
    ]
    assert main([*arguments, "--sizes", "24", "-o", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--sizes", "112,big"], "no list of whole numbers"),
        (["--sizes", "0"], "positive"),
        (["--batch-size", "0"], "at least 1"),
        (["--split", "train"], "no annotations for the split 'train'"),
        (["--against", "nowhere.safetensors"], "no checkpoint at nowhere.safetensors"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments, extra, message, capsys):
    assert main([*arguments, *extra]) == 2
    assert message in capsys.readouterr().err


def test_a_larger_input_at_the_bases_time(arguments, tmp_path, capsys, monkeypatch):
    """With a clock of our own: time grows with the square of the side, the faster network takes four fifths."""
    from elastic_cnn.conversion import times
    from elastic_cnn.measure.medians import MedianInterval

    def clock(subjects, form):
        cost = [image.shape[-1] ** 2 * (0.8 if number else 1) for number, (_, image) in enumerate(subjects)]
        return [MedianInterval(c / cost[0], c / cost[0], c / cost[0]) for c in cost[1:]]

    monkeypatch.setattr(times, "_ratios", clock)
    base = arguments[1]
    monkeypatch.setattr(times, "SIDES", 4)
    assert main([*arguments, "--against", base, "--equal-time"]) == 2  # 40 pixels: 0.8 * (40 / 32)^2 = 1.25
    assert "takes 1.25 of its base's time at 40 pixels" in capsys.readouterr().err
    assert main([*arguments, "--equal-time"]) == 2
    assert "--equal-time needs --against" in capsys.readouterr().err
    small = [MedianInterval(r, r, r) for r in (0.9, 0.99, 1.2, 1.3)]
    monkeypatch.setattr(times, "_ratios", lambda subjects, form: small)
    assert main([*arguments, "--against", base, "--equal-time"]) == 0
    printed = capsys.readouterr().out
    assert "at 48 pixels takes 0.990 (0.990 to 0.990) of the time of" in printed
    assert "F1 per class" in printed.split("at equal time")[1]
