"""`elastic predict` as a user calls it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.cli import main
from elastic_cnn.policy import scale_policy
from elastic_cnn.policy.predict import Prediction, render
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint

NARROW = {"num_classes": 7, "channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}
CLASSES = tuple("abcdefg")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two photos of the network's own size, a broken one, and three checkpoints."""
    root = tmp_path_factory.mktemp("predict")
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(pixels[number]).save(root / f"{number}.png")
    (root / "broken.png").write_bytes(b"no picture")
    jobs = (("elastic", "resnext_small_elastic", "classification"), ("base", "resnext_small", "classification"))
    for seed, (file, name, task) in enumerate((*jobs, ("multi", "resnext_small_elastic", "multilabel"))):
        torch.manual_seed(seed)
        card = NetworkCard(name, NARROW, task, CLASSES, InputSpec(size=(32, 32), crop_pct=1.0))
        save_checkpoint(root / f"{file}.safetensors", elastic_cnn.create_model(name, **NARROW), card)
    normal = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    images = torch.from_numpy(normal).float().permute(0, 3, 1, 2)
    return SimpleNamespace(root=root, images=images, photos=[str(root / f"{i}.png") for i in range(2)])


def test_json_equals_a_run_by_hand(place, capsys):
    checkpoint = place.root / "elastic.safetensors"
    assert main(["predict", str(checkpoint), *place.photos, "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    network, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        probabilities = network(place.images).softmax(1)
    scores = scale_policy(network, place.images)
    for number, answer in enumerate(answers):
        values, indices = probabilities[number].topk(5)
        assert answer["path"] == place.photos[number]
        assert [entry["class"] for entry in answer["classes"]] == [CLASSES[i] for i in indices]
        found = [entry["probability"] for entry in answer["classes"]]
        np.testing.assert_allclose(found, values, rtol=1e-4)
        assert [block["name"] for block in answer["policy"]] == network.elastic_report.converted
        assert [block["height"] for block in answer["policy"]] == [8, 8, 4]
        np.testing.assert_allclose([block["score"] for block in answer["policy"]], scores[number], rtol=1e-3, atol=1e-6)


def test_text_shows_classes_and_a_bar_for_each_block(place, capsys):
    assert main(["predict", str(place.root / "elastic.safetensors"), place.photos[0], "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == place.photos[0]
    assert [line.strip()[0] in CLASSES and "%" in line for line in lines[1:4]] == [True] * 3
    assert [line.split()[0] for line in lines[5:]] == ["layer1.0", "layer1.1", "layer2.1"]
    assert lines[5].split()[1] == "8x8"


def test_a_base_network_says_that_it_has_no_policy(place, capsys):
    assert main(["predict", str(place.root / "base.safetensors"), place.photos[0]]) == 0
    assert "no scale policy: this network has no elastic block" in capsys.readouterr().out
    assert main(["predict", str(place.root / "base.safetensors"), place.photos[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["policy"] is None


def test_multilabel_lists_all_classes_above_the_threshold(place, capsys):
    checkpoint = place.root / "multi.safetensors"
    network, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        probabilities = network(place.images[:1]).sigmoid()[0]
    threshold = float(probabilities.median())  # of seven classes three lie above
    assert main(["predict", str(checkpoint), place.photos[0], "--json", "--threshold", str(threshold + 1e-6)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    expected = [CLASSES[i] for i in probabilities.argsort(descending=True)[:3]]
    assert [entry["class"] for entry in answer["classes"]] == expected
    assert main(["predict", str(checkpoint), place.photos[0], "--threshold", "0.9999"]) == 0
    assert "no class is probable enough" in capsys.readouterr().out


def test_unreadable_files_are_named_and_the_others_done(place, capsys):
    broken, missing = str(place.root / "broken.png"), str(place.root / "none.png")
    images = [broken, place.photos[0], missing, place.photos[1]]
    assert main(["predict", str(place.root / "elastic.safetensors"), *images]) == 2
    streams = capsys.readouterr()
    assert [line for line in streams.out.splitlines() if line in images] == place.photos
    assert f"{broken} cannot be read" in streams.err
    assert f"2 of 4 images cannot be read: '{broken}', '{missing}'" in streams.err
    assert main(["predict", str(place.root / "elastic.safetensors"), *images, "--json"]) == 2
    answers = json.loads(capsys.readouterr().out)
    assert ["error" in answer for answer in answers] == [True, False, True, False]


@pytest.mark.parametrize(("option", "value"), [("--top", "0"), ("--threshold", "1.5"), ("--threshold", "nan")])
def test_bad_options_are_refused(place, capsys, option, value):
    assert main(["predict", str(place.root / "elastic.safetensors"), place.photos[0], option, value]) == 2
    assert option in capsys.readouterr().err


def test_bars_point_to_the_scale_and_control_characters_are_shown():
    blocks = [(BlockInfo("layer1.0", (1, 2), 1, 56, 56), 0.5), (BlockInfo("layer2.1", (1, 2), 2, 28, 28), -0.25)]
    prediction = Prediction("a\x1b[2J.jpg", "classification", (("n01440764", 0.5),), tuple(blocks))
    lines = render(prediction, fancy=False).splitlines()
    assert lines[0] == "a\\x1b[2J.jpg"
    assert lines[1].split() == ["n01440764", "tench", "50.0%", "############"]
    assert lines[3].endswith("+0.5000" + " " * 14 + "|" + "#" * 12)
    assert lines[4].endswith("-0.2500" + " " * 8 + "######|")
    columns = {line.index("|") for line in lines[2:]}
    assert len(columns) == 1  # the middle is one line
