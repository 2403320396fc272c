"""`elastic elasticize --photos` as a user runs it: from a checkpoint and photos to a faster network."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from elastic_cnn import load_checkpoint, restore
from elastic_cnn.cli import main
from elastic_cnn.conversion.outcome import Outcome
from elastic_cnn.zoo import InputSpec, NetworkCard, create_model, save_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of a small classifier of two classes."""
    torch.manual_seed(1)
    kwargs = {"num_classes": 2, "layers": [2, 2, 2, 1], "channels": [16, 16, 32, 32]}
    card = NetworkCard("resnet26", kwargs, classes=("dark", "light"), input=InputSpec(size=(48, 48)))
    path = tmp_path_factory.mktemp("trained") / "base.safetensors"
    return save_checkpoint(path, create_model("resnet26", **kwargs).eval(), card)


def test_from_a_checkpoint_and_photos_to_a_faster_network(trained, tiny, tmp_path, capsys):
    out = tmp_path / "fast.safetensors"
    command = ["elasticize", str(trained), "--photos", str(tiny / "photos" / "train"), "--count", "8", "-o", str(out)]
    assert main([*command, "--budget", "95%", "--form", "bf16", "--test", str(tiny / "photos")]) == 0
    text = capsys.readouterr().out
    assert text.index("to test on, val: ") < text.index("multiply-adds")
    ratio = float(re.search(r"multiply-adds +1 +(0\.\d+)", text)[1])
    assert 0.85 < ratio <= 0.95
    assert re.search(r"time, bf16 +1 +\d+\.\d+ \(", text)
    assert re.search(r"same answers on 4 other photos +100% +\d+\.\d%", text)
    assert re.search(r"top-1 +\d+\.\d+% +\d+\.\d+%", text)
    assert f"wrote {out}" in text
    assert (tmp_path / "fast.png").stat().st_size > 1000
    fast, card = load_checkpoint(out)
    assert card.info["conversion"]["macs_ratio"] == pytest.approx(ratio, abs=1e-3)
    assert card.info["conversion"]["aim"]["budget"] == 0.95
    images = torch.randn(2, 3, 48, 48)
    code = (
        f"import torch, elastic_cnn; n, _ = elastic_cnn.load_checkpoint({str(out)!r}); torch.manual_seed(0); "
        "print(n(torch.randn(2, 3, 48, 48)).tolist())"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 48, 48)
    assert torch.allclose(torch.tensor(json.loads(fresh.stdout)), fast(images), atol=1e-5)
    with pytest.warns(UserWarning, match="refitted"):
        restore(fast)
    assert main([*command, "--budget", "0.95"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_what_is_wrong_with_the_labelled_photos_is_told_before_the_conversion(trained, tiny, tmp_path, capsys):
    photos = ["--photos", str(tiny / "photos" / "train"), "--count", "4", "--no-timing", "--no-refit"]
    for level, name in enumerate(("dark", "light", "grey")):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9), (level, 0, 0)).save(tmp_path / "val" / name / "a.png")
    command = ["elasticize", str(trained), *photos, "--test", str(tmp_path)]
    assert main(command) == 2
    told = capsys.readouterr()
    assert "'grey', which the 2 classes to choose from lack" in told.err
    assert told.out == ""
    shutil.rmtree(tmp_path / "val" / "grey")
    (tmp_path / "val" / "light" / "a.png").rename(tmp_path / "val" / "dark" / "b.png")
    assert main(command) == 0
    told = capsys.readouterr()
    assert told.out.startswith("to test on, val: 2 photos in 1 class")
    assert "light" in told.err


def test_why_a_network_was_not_timed_stands_below_the_table_in_full():
    reason = "the form 'native' cannot be timed here: it does " + "and does ".join("abcdefghij") + "serve"
    table, said = Outcome(0.8, "native", None, reason, 1.0, 4).table().rsplit("\n", 1)
    assert said == f"not timed: {reason}"
    assert "time" not in table


def test_a_tolerance_is_kept_on_photos_held_out(trained, tiny, tmp_path, capsys):
    out = tmp_path / "same.safetensors"
    photos = ["--photos", str(tiny / "photos" / "train"), "--count", "4", "--no-timing"]
    assert main(["elasticize", str(trained), *photos, "--tolerance", "50%", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    changed = float(re.search(r"(\d+\.\d)% of the answers on photos held out changed", printed)[1])
    assert changed <= 50
    done = load_checkpoint(out)[1].info["conversion"]
    assert done["changed"] == pytest.approx(changed / 100, abs=1e-3)
    assert done["macs_ratio"] < 1
    assert done["aim"] == {"budget": None, "time": None, "tolerance": 0.5}


def test_each_block_chooses_its_scales(trained, tiny, tmp_path, capsys):
    out = tmp_path / "mixed.safetensors"
    photos = ["--photos", str(tiny / "photos" / "train"), "--count", "4", "--no-timing", "--no-refit"]
    assert main(["elasticize", str(trained), *photos, "--scales", "auto", "--budget", "84%", "-o", str(out)]) == 0
    assert re.search(r"layer1\.0 +bottleneck +1: .*4: \d", capsys.readouterr().out)
    blocks = load_checkpoint(out)[1].info["conversion"]["blocks"]
    assert 4 in {scale for block in blocks for scale in block["scales"]}
    assert load_checkpoint(out)[0](torch.randn(1, 3, 48, 48)).shape == (1, 2)


def test_published_weights_answer_imagenet(tiny, tmp_path, capsys):
    """A network by name knows its classes: it can be tested on ImageNet's folders, and be a teacher."""
    weights, out, data = tmp_path / "weights.safetensors", tmp_path / "fast.safetensors", tmp_path / "photos"
    save_file(create_model("resnet10t").state_dict(), weights)
    shutil.copytree(tiny / "photos" / "val", data / "val")
    for folder, synset in zip(sorted((data / "val").iterdir()), ("n02102040", "n03000684"), strict=False):
        folder.rename(folder.with_name(synset))
    command = ["elasticize", "resnet10t", "--weights", str(weights), "--photos", str(tiny / "photos" / "train")]
    command += ["--count", "4", "--no-timing", "--no-refit", "--test", str(data), "-o", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "its 1000 classes are taken for ImageNet's" in printed
    assert re.search(r"top-1 +0\.00% +0\.00%", printed)
    assert load_checkpoint(out)[1].classes[217] == "n02102040"


@pytest.mark.parametrize("carded", [False, True])
def test_only_a_published_classifier_answers_imagenet(carded, tmp_path, capsys):
    """A new one knows no classes; a checkpoint's card names its own."""
    weights, out = tmp_path / "weights.safetensors", tmp_path / "elastic.safetensors"
    names = tuple(f"class{number:04}" for number in range(1000))
    if carded:
        save_checkpoint(weights, create_model("resnet10t"), NetworkCard("resnet10t", classes=names))
    else:
        save_file(create_model("resnet10t", num_classes=10).state_dict(), weights)
    assert main(["elasticize", "resnet10t", "--weights", str(weights), "-o", str(out)]) == 0
    assert "taken for ImageNet's" not in capsys.readouterr().out
    assert load_checkpoint(out)[1].classes == (names if carded else ())


def test_without_a_refit_the_base_comes_back(trained, tiny, tmp_path, capsys):
    out = tmp_path / "exact.safetensors"
    photos = ["--photos", str(tiny / "photos" / "train"), "--count", "4", "--no-timing"]
    assert main(["elasticize", str(trained), *photos, "--no-refit", "-o", str(out)]) == 0
    assert "ordered, on 4 photos" in capsys.readouterr().out
    images = torch.randn(2, 3, 48, 48)
    assert torch.allclose(restore(load_checkpoint(out)[0])(images), load_checkpoint(trained)[0](images), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--budget", "0.8"], "--budget needs --photos"),
        (["--photos", "PHOTOS", "--budget", "0.1"], "a budget of 0.1 cannot be met"),
        (["--photos", "PHOTOS", "--scales", "auto"], "needs --photos and an aim"),
        (["--scales", "auto"], "needs --photos and an aim"),
        (["--photos", "PHOTOS", "--budget", "0.8", "--scales", "1", "auto"], "--scales auto stands alone"),
        (
            ["--photos", "PHOTOS", "--budget", "0.8", "--scales", "two"],
            "invalid choice: 'two': whole numbers such as 1 2, or auto",
        ),
        (["--photos", "PHOTOS", "--budget", "120%"], "budget must lie between 0 and 1"),
        (["--photos", "PHOTOS", "--budget", "x"], "no number such as 0.8"),
        (["--photos", "PHOTOS", "--budget", "0.8", "--time", "0.8"], "not allowed with"),
        (["--photos", "nowhere"], "there is no folder nowhere"),
        (["--photos", "PHOTOS", "--count", "0"], "--count must be at least 1"),
        (["--photos", "PHOTOS", "--match", "macs"], "--match adds untrained layers"),
    ],
)
def test_bad_conversions(trained, tiny, arguments, word, capsys):
    arguments = [str(tiny / "photos" / "train") if part == "PHOTOS" else part for part in arguments]
    assert main(["elasticize", str(trained), "--no-timing", *arguments]) == 2
    assert re.search(word, capsys.readouterr().err)
