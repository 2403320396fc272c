"""`elastic benchmark` end to end on a tiny network, and its refusals."""

import json

import pytest
import torch

from elastic_cnn import save_checkpoint
from elastic_cnn.cli import main
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard


def test_measures_checkpoints_and_writes_json(tmp_path, capsys):
    torch.manual_seed(0)
    paths = []
    for width in (8, 16):
        card = NetworkCard("resnet10t", {"num_classes": 2, "stem_width": 8, "channels": [width] * 4})
        paths.append(str(save_checkpoint(tmp_path / f"{width}.safetensors", card.build(), card)))
    out = tmp_path / "out.json"
    arguments = [
        paths[1],
        "--against",
        paths[0],
        "--forms",
        "eager,optimized,onnxruntime",
        "--size",
        "32",
        "--rounds",
        "3",
    ]
    arguments += [
        "--batch-sizes",
        "2",
        "--train-batch-sizes",
        "2",
        "--threads",
        "1",
        "--dtypes",
        "bfloat16",
        "--memory",
    ]
    assert main(["benchmark", *arguments, "-o", str(out)]) == 0
    results = json.loads(out.read_text())
    inference, training = results["cells"]
    assert [cell["job"] for cell in (inference, training)] == ["inference", "training"]
    assert [(row["network"], row["form"]) for row in inference["rows"]] == [
        (paths[1], "eager"), (paths[0], "eager"), (paths[1], "optimized"), (paths[0], "optimized"),
    ]  # fmt: skip
    assert {entry["reason"] for entry in inference["unavailable"]} == {"float32 on the CPU alone"}
    for row in inference["rows"]:
        assert 0 < row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["rounds"] == 3
    base = inference["rows"][1]
    assert base["ratios"]["eager"] == {"median": 1, "low": 1, "high": 1}
    assert "of base, same form" in capsys.readouterr().out
    assert main(["benchmark", paths[0], "-o", str(out), "--size", "32"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("own", "given", "side", "told"),
    [
        ((48, 48), [], 48, "timed at 48 x 48: {path} is meant for photos of 48 x 48; --size PX takes another"),
        ((32, 128), [], 64, "timed at 64 x 64: {path} is meant for photos of 32 x 128, about as many pixels"),
        ((48, 48), ["--size", "32"], 32, ""),
    ],
)
def test_a_checkpoint_is_timed_at_its_own_size(own, given, side, told, tmp_path, capsys):
    kwargs = {"num_classes": 2, "stem_width": 8, "channels": [8] * 4}
    card = NetworkCard("resnet10t", kwargs, input=InputSpec(own))
    path, out = save_checkpoint(tmp_path / "net.safetensors", card.build(), card), tmp_path / "out.json"
    words = ["--forms", "eager", "--batch-sizes", "1", "--rounds", "2", "-o", str(out), *given]
    assert main(["benchmark", str(path), *words]) == 0
    assert json.loads(out.read_text())["request"]["size"] == side
    err = capsys.readouterr().err
    assert told.format(path=path) in err
    assert bool(told) == ("timed at" in err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "--forms", "fast"], "unknown forms 'fast'"),
        (["resnet18", "--size", "0"], "the size must be at least 1"),
        (["resnet18", "--threads", "0"], "threads must be at least 1"),
        (["resnet18", "--batch-sizes", "0"], "nothing to measure"),
    ],
)
def test_bad_input(capsys, arguments, message):
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unknown_networks_are_named_by_the_process_that_would_run_them(capsys):
    assert main(["benchmark", "resnext55", "--forms", "eager", "--batch-sizes", "1", "--threads", "1"]) == 2
    assert "unknown network 'resnext55'; did you mean" in capsys.readouterr().err
