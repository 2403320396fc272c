"""The stress test against `evaluate` at each size, its table, files and picture."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from coco_files import write_coco
from PIL import Image

from elastic_cnn import elasticize
from elastic_cnn.analysis.stress import (
    StressedNetwork,
    StressTest,
    format_table,
    stress_test,
    to_csv,
    to_json,
    write_stress_test,
)
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import evaluate
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint
from elastic_cnn.zoo.factory import create_model

NARROW = {"stem_width": 8, "channels": [8, 8, 16, 16]}
QUIET = Settings("cpu", progress=False)
SQUASH = InputSpec((32, 32), crop_pct=1.0, crop_mode="squash")


def save_pair(folder: Path, task: str, classes: tuple[str, ...], spec: InputSpec, **info) -> tuple[Path, Path]:
    """(base, the same made elastic), with random weights."""
    kwargs = {**NARROW, "num_classes": len(classes)}
    network = create_model("resnet10t", **kwargs).eval()
    for name, parameter in network.named_parameters():  # timm's initial norms close every residual branch
        torch.nn.init.normal_(parameter, std=1.0 if "fc" in name else 0.3)
    card = NetworkCard("resnet10t", kwargs, task, classes, spec, info=info)
    base = save_checkpoint(folder / "base.safetensors", network, card)
    return base, save_checkpoint(folder / "elastic.safetensors", elasticize(network), card)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"), {"val": 12})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    torch.manual_seed(0)
    classes = ("white", "green", "red", "blue")
    return save_pair(tmp_path_factory.mktemp("pair"), "multilabel", classes, SQUASH)


def test_every_number_is_that_of_a_test_at_that_size(coco, pair):
    base, elastic = pair
    lines = []
    test = stress_test(elastic, coco, (48, 24), against=base, settings=QUIET, progress=lines.append)
    assert [network.label for network in test.networks] == ["resnet10t", "resnet10t+elastic"]
    assert (test.sizes, test.images) == ((24, 48), 12)
    assert len(lines) == 4
    for network, path in zip(test.networks, (base, elastic), strict=True):
        assert network.trained_size == 32
        for size in (24, 48):
            expected = evaluate(path, coco, options=TestOptions(image_size=size), settings=QUIET)
            for name in ("f1_per_class", "f1_overall_large", "map", "loss"):
                assert network.results[size][name] == expected[name]
    results = [network.results[size]["loss"] for network in test.networks for size in (24, 48)]
    assert len(set(results)) == 4


def test_classification_checkpoints_are_tested_too(tmp_path):
    for number in range(6):
        folder = tmp_path / "data" / "val" / ("a", "b")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (40 * number, 100, 0)).save(folder / f"{number}.png")
    base, _ = save_pair(tmp_path, "classification", ("a", "b"), InputSpec((32, 32)))
    test = stress_test(base, tmp_path / "data", (32, 64), settings=QUIET)
    assert (test.task, test.images, len(test.networks)) == ("classification", 6, 1)
    expected = evaluate(base, tmp_path / "data", options=TestOptions(image_size=64), settings=QUIET)
    assert test.networks[0].results[64]["top1"] == expected["top1"]
    assert "top-1 accuracy" in format_table(test)
    assert len(write_stress_test(test, tmp_path / "out")) == 4


@pytest.fixture
def known() -> StressTest:
    scores = {size: {"f1_per_class": size / 1000, "f1_overall": 0.5} for size in (112, 224)}
    better = {size: {"f1_per_class": size / 1000 + 0.0123, "f1_overall": 0.4} for size in (112, 224)}
    networks = (StressedNetwork("base", "b.st", 224, scores), StressedNetwork("elastic", "e.st", 224, better))
    return StressTest("multilabel", "coco", "val", (112, 224), 687, networks)


def test_the_table_shows_per_cent_and_gains(known):
    lines = [line.split() for line in format_table(known).splitlines()]
    assert ["112", "11.20", "12.43", "+1.23"] in lines
    assert ["224*", "50.00", "40.00", "-10.00"] in lines
    assert "mAP" not in format_table(known)


def test_csv_and_json_hold_every_number(known):
    rows = list(csv.DictReader(io.StringIO(to_csv(known))))
    assert [(row["network"], int(row["size"]), float(row["f1_per_class"])) for row in rows] == [
        ("base", 112, 0.112),
        ("base", 224, 0.224),
        ("elastic", 112, 0.112 + 0.0123),
        ("elastic", 224, 0.224 + 0.0123),
    ]
    found = json.loads(json.dumps(to_json(known)))
    assert found["networks"][1]["results"][1] == {"size": 224, "f1_per_class": 0.224 + 0.0123, "f1_overall": 0.4}


def test_files_are_written_once_and_the_picture_is_one(known, tmp_path):
    files = write_stress_test(known, tmp_path / "out")
    assert [file.name for file in files] == ["stress.csv", "stress.json", "stress.png", "stress.svg"]
    with Image.open(files[2]) as picture:
        assert min(picture.size) > 300
        assert len(set(picture.convert("RGB").resize((60, 30)).get_flattened_data())) > 20
    svg = files[3].read_text()
    assert "F1 per class (%)" in svg
    assert "elastic" in svg
    before = [file.read_bytes() for file in files]
    with pytest.raises(ValueError, match="exists already"):
        write_stress_test(known, tmp_path / "out")
    assert [file.read_bytes() for file in write_stress_test(known, tmp_path / "out", overwrite=True)] == before


@pytest.mark.parametrize("sizes", [(), (0, 32), (32, 32)])
def test_senseless_sizes_are_refused(coco, pair, sizes):
    with pytest.raises(ValueError, match="sizes must be different positive"):
        stress_test(pair[0], coco, sizes, settings=QUIET)


def test_networks_of_different_jobs_are_not_compared(coco, pair, tmp_path):
    other, _ = save_pair(tmp_path, "multilabel", ("white", "green"), SQUASH)
    with pytest.raises(ValueError, match="cannot be compared"):
        stress_test(pair[0], coco, (32,), against=other, settings=QUIET)
    segments, _ = save_pair(tmp_path, "segmentation", ("a",), SQUASH)
    with pytest.raises(ValueError, match=r"base.safetensors is for segmentation"):
        stress_test(segments, coco, (32,), settings=QUIET)
    with pytest.raises(ValueError, match="one process"):
        stress_test(pair[0], coco, (32,), settings=Settings("cpu", devices=2))
