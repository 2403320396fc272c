"""`elastic predict` as a user calls it."""

import csv
import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.cli import main
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.policy import scale_policy
from elastic_cnn.policy.predict import Prediction, render
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.video import frames
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
    expected = [CLASSES[i] for i in probabilities.argsort(descending=True)]
    assert [entry["class"] for entry in answer["classes"]] == expected[:5]  # those below it are shown too
    assert [entry["class"] for entry in answer["classes"] if entry["predicted"]] == expected[:3]
    few = ["predict", str(checkpoint), place.photos[0], "--top", "1"]
    assert main([*few, "--json", "--threshold", str(threshold + 1e-6)]) == 0
    assert [entry["class"] for entry in json.loads(capsys.readouterr().out)[0]["classes"]] == expected[:3]
    assert main([*few, "--threshold", "0.9999"]) == 0
    printed = capsys.readouterr().out
    assert "no class is probable enough" in printed
    assert expected[0] in printed.splitlines()[1]


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


def test_thresholds_are_those_that_training_tuned(place, tmp_path, capsys):
    network, card = load_checkpoint(place.root / "multi.safetensors")
    with torch.no_grad():
        chances = network(place.images[:1]).sigmoid()[0].tolist()
    tuned = [chance + (0.01 if number % 2 else -0.01) for number, chance in enumerate(chances)]
    for told, expected in (
        (tuned, set("aceg")),
        (tuned[:3], {c for c, p in zip(CLASSES, chances, strict=True) if p > 0.5}),
    ):
        info = {"results": {"class_threshold": told}}
        save_checkpoint(tmp_path / "tuned.safetensors", network, replace(card, info=info))
        assert main(["predict", str(tmp_path / "tuned.safetensors"), place.photos[0], "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        assert {entry["class"] for entry in answer["classes"] if entry["predicted"]} == expected


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_files_hold_what_is_printed(place, tmp_path, capsys, monkeypatch, ending):
    """Photos come from standard input too; a broken one has its reason, and the exit code says that there is one."""
    checkpoint, out = str(place.root / "elastic.safetensors"), tmp_path / f"answers.{ending}"
    names = [*place.photos, str(place.root / "broken.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(names) + "\n\n"))
    assert main(["predict", checkpoint, "-", "-o", str(out), "--top", "2", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    if ending == "json":
        assert json.loads(out.read_text()) == printed
        return
    if ending == "csv":
        with out.open() as file:
            rows = list(csv.DictReader(file))
    else:
        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == names
    for row, answer in zip(rows[:2], printed[:2], strict=True):
        for number, entry in enumerate(answer["classes"], 1):
            assert row[f"class_{number}"] == entry["class"]
            assert float(row[f"probability_{number}"]) == pytest.approx(entry["probability"])
        assert row["answer"] == answer["classes"][0]["class"]
    assert "no picture of a known kind" in rows[2]["error"]
    assert not rows[2]["answer"]


def test_files_that_cannot_be_written_are_refused_before_any_work(place, tmp_path, capsys, monkeypatch):
    checkpoint = str(place.root / "elastic.safetensors")
    (tmp_path / "there.csv").write_text("mine")
    for arguments, says in (
        (["-o", str(tmp_path / "answers.txt")], "choose one of these endings"),
        (["-o", str(tmp_path / "there.csv")], "exists already"),
        (["--every", "0"], "--every must be a positive number"),
    ):
        assert main(["predict", checkpoint, place.photos[0], *arguments]) == 2
        assert says in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text() == "mine"
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["predict", checkpoint, "-"]) == 2
    assert "standard input names no photos" in capsys.readouterr().err


def test_pictures_and_arrays_are_answered_as_their_files_are(place):
    """EXIF turns a picture, and a palette is read in its colours, as in a file."""
    checkpoint = place.root / "elastic.safetensors"
    with Image.open(place.photos[0]) as picture:
        picture.load()
    named = elastic_cnn.predict(checkpoint, [place.photos[0], picture, np.asarray(picture)])
    assert [answer.path for answer in named] == [place.photos[0], "photo 1", "photo 2"]
    assert named[0].classes == named[1].classes == named[2].classes
    assert elastic_cnn.predict(checkpoint, picture)[0].classes == named[0].classes
    assert elastic_cnn.predict(checkpoint, place.photos[0])[0].classes == named[0].classes
    assert "%" in named[0]._repr_html_()
    turned = picture.rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6  # "rotate by 90 degrees to the right to see it upright"
    turned.save(place.root / "turned.PNG", "PNG", exif=exif)
    assert elastic_cnn.predict(checkpoint, place.root / "turned.PNG")[0].classes == named[0].classes
    (place.root / "turned.PNG").unlink()
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.float32), object()):
        with pytest.raises(ValueError, match="a photo"):
            elastic_cnn.predict(checkpoint, [wrong])


def write_film(path, shades, turned=0, sound=0):
    """Ten frames a second of 96 x 64 pixels, each of one grey but for a white left edge, beside seconds of silence;
    returns the path."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        if turned:
            if not hasattr(type(stream), "set_display_rotation"):
                pytest.skip("this PyAV writes no turned film")
            stream.set_display_rotation(turned)
        silence = out.add_stream("aac", rate=8000, layout="mono") if sound else None
        for shade in shades:
            pixels = np.full((64, 96, 3), shade, np.uint8)
            pixels[:, :16] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
        for number in range(8 * sound):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 8000, 1000 * number
            out.mux(silence.encode(heard))
    return path


def test_films_are_upright_and_whole(tmp_path):
    """A telephone's film is stored lying, with the angle beside it; one that breaks off says so after its frames."""
    (name, picture), *_ = frames(write_film(tmp_path / "turned.mp4", [40] * 5, turned=90), 1.0)
    assert (name, picture.size) == (f"{tmp_path / 'turned.mp4'}@0.00", (64, 96))
    assert picture.getpixel((32, 92))[0] > 200  # the left edge is at the bottom after a quarter turn to the left
    assert picture.getpixel((32, 8))[0] < 80
    whole = write_film(tmp_path / "whole.mkv", np.random.default_rng(0).integers(0, 255, (60, 1, 1, 3)))
    assert len(list(frames(whole, 0.1))) == 60
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    seen = []
    with pytest.raises(UnreadableSample, match=r"cut off: it lasts 6\.0 s and ends at \d\.\d s"):
        seen += frames(tmp_path / "cut.mkv", 0.1)
    assert len(seen) < 60
    assert (
        len(list(frames(write_film(tmp_path / "sound.mp4", [40] * 5, sound=4), 0.1))) == 5
    )  # no part of it is missing


def test_films_are_read_frame_by_frame(place, tmp_path, capsys):
    film = write_film(tmp_path / "film.mp4", range(0, 250, 10))
    checkpoint = str(place.root / "elastic.safetensors")
    assert main(["predict", checkpoint, str(film), place.photos[0], "--json", "--every", "0.5"]) == 0
    answers = json.loads(capsys.readouterr().out)
    times = [f"{film}@{number / 2:.2f}" for number in range(5)]
    assert [answer["path"] for answer in answers] == [*times, place.photos[0]]
    shades = [picture.getpixel((32, 32))[0] for _, picture in frames(film, 0.5)]
    np.testing.assert_allclose(shades, [0, 50, 100, 150, 200], atol=6)
    (tmp_path / "torn.mp4").write_bytes(film.read_bytes()[:200])
    assert main(["predict", checkpoint, str(tmp_path / "torn.mp4"), place.photos[0], "--json"]) == 2
    answers = json.loads(capsys.readouterr().out)
    assert ["error" in answer for answer in answers] == [True, False]


def test_films_without_their_reader_name_the_extra(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"x")
    assert main(["predict", str(place.root / "elastic.safetensors"), str(tmp_path / "film.mp4")]) == 2
    assert "pip install 'elastic-cnn[video]'" in capsys.readouterr().err
