"""Weights so large that answers are not finite: the best class of NaN is the first, so nothing may be told of them."""

import json
from typing import Any

import pytest
import torch
from bad_runs import Shell
from safetensors.torch import save_file

from elastic_cnn import elasticize
from elastic_cnn.conversion import convert
from elastic_cnn.surgery import recalibrate
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import METADATA_KEY, InputSpec, NetworkCard, save_checkpoint

KWARGS: dict[str, Any] = {"num_classes": 2, "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
CARD = NetworkCard("resnet26", KWARGS, classes=("dark", "light"), input=InputSpec(size=(32, 32)))


def network(value: float) -> torch.nn.Module:
    made = create_model("resnet26", **KWARGS)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("huge") / "huge.safetensors", network(3e38), CARD)


@pytest.mark.parametrize(
    "command",
    [
        "predict HUGE PHOTOS/val",
        "eval HUGE --data PHOTOS --workers 0 --accelerator cpu --no-progress",
        "stress HUGE --data PHOTOS --sizes 32 --workers 0 --accelerator cpu --no-progress",
        "explore HUGE --data PHOTOS --workers 1 -o OUT --no-progress",
        "export HUGE -o OUT.pt2",
        "elasticize HUGE --photos PHOTOS/val --count 2 --no-timing -o OUT.safetensors",
        "recalibrate HUGE --data PHOTOS -o OUT.safetensors",
        "serve HUGE --port 0",
    ],
)
def test_the_checkpoint_is_named(command, huge, tiny, tmp_path, shell):
    given = {"HUGE": huge, "PHOTOS": tiny / "photos", "OUT": tmp_path / "out"}
    words = command.split()
    for name, value in given.items():
        words = [word.replace(name, str(value)) for word in words]
    assert shell.run(*words) == 2
    (line,) = [line for line in shell.err.splitlines() if line.startswith("elastic: error: ")]
    assert str(huge) in line
    assert "not finite" in line
    assert not list(tmp_path.iterdir())


def test_statistics_stay_where_new_ones_would_be_broken():
    made = network(3e38)
    before = {name: value.clone() for name, value in made.state_dict().items() if "running" in name}
    with pytest.raises(ValueError, match="not finite"):
        recalibrate(made, [torch.randn(4, 3, 32, 32)])
    assert all(torch.equal(made.state_dict()[name], value) for name, value in before.items())


def test_what_would_not_load_again_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"out.safetensors is not written: the tensor \S+ holds values"):
        save_checkpoint(tmp_path / "out.safetensors", network(float("nan")), CARD)
    assert not list(tmp_path.iterdir())


def test_a_comparison_of_nothing_is_no_comparison():
    report: Any = elasticize(network(3e38)).elastic_report
    assert report.verified is None
    assert "was not compared with the original" in report.note
    with pytest.raises(ValueError, match="answers of the network are not finite"):
        convert(network(3e38), torch.randn(4, 3, 64, 64))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("std", [1e-300, 1, 1], "std positive"),
        ("mean", [10**400, 0, 0], "must be numbers"),
        ("crop_pct", 1e-9, "crop_pct must be a part of the picture from 0.1 on"),  # resized to 3e10 pixels a side
        ("max_value", 10**400, "max_value must be a positive number"),
        ("max_value", float("inf"), "max_value must be a positive number"),
    ],
)
def test_inputs_that_cannot_be_prepared(key, value, says, tmp_path, tiny, shell):
    card = json.loads(CARD.to_json())
    card["input"][key] = value
    path = tmp_path / "net.safetensors"
    save_file(network(0.1).state_dict(), path, metadata={METADATA_KEY: json.dumps(card)})
    shell.refuses("predict", path, tiny / "photos" / "val", named=str(path), says=says)


def test_what_a_network_refuses_names_its_checkpoint(tmp_path, tiny, shell):
    card = json.loads(CARD.to_json())
    card["kwargs"]["drop_rate"] = -3
    path = tmp_path / "net.safetensors"
    save_file(network(0.1).state_dict(), path, metadata={METADATA_KEY: json.dumps(card)})
    shell.refuses("predict", path, tiny / "photos" / "val", named=str(path), says="dropout probability")
