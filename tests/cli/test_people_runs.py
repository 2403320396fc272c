"""Runs as people start them: batches that do not fit, seeds, averages on small data, local data of the Hub, compiled
training, trained networks taken to a Hub folder and back, uneven tests over two processes."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from bad_runs import Shell
from PIL import Image
from safetensors.torch import load_file
from test_bad_pictures import RECIPE

from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import load_checkpoint
from elastic_cnn.zoo.hub import save_for_hf

COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60)}


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`data/{train,val}/{red,green}`, uneven in val, and the recipe of a narrow network, `tiny.yaml`."""
    root, rng = tmp_path_factory.mktemp("people"), np.random.default_rng(0)
    for split, counts in (("train", (6, 6)), ("val", (5, 2))):
        for (name, colour), count in zip(COLOURS.items(), counts, strict=True):
            folder = root / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + rng.normal(0, 40, (40, 48, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "tiny.yaml").write_text(RECIPE.replace("batch_size: 13", "batch_size: 4"))
    return root


def train(place, out, *more, data=None):
    return ("train", place / "tiny.yaml", "--data", data or place / "data", "-o", out, "--workers", "0", *more)


@pytest.fixture(scope="module")
def run(place):
    from elastic_cnn.cli import main

    assert main([str(word) for word in train(place, place / "run")]) == 0
    return place / "run"


REFUSED = {
    ("batch_size=1",): "batch norm needs two: raise batch_size",
    ("batch_size=64",): "batch_size=64 exceeds the 12 training images: add batch_size=8",
    ("batch_size=0",): "batch_size",
    ("batch_size=-4",): "batch_size",
    ("accumulate=3",): "batch_size=4 cannot be divided evenly over 1 process(es) x accumulate=3",
    ("accumulate=4",): "batch norm needs two",
    ("precision=fp16",): "precision must be one of fp32, bf16-mixed, 16-mixed, not 'fp16'",
    ("precision=16-mixed", "--accelerator", "cpu"): "precision=16-mixed is for GPUs, this run is on the CPU: take",
    ("epochs=0",): "epochs",
    ("optimizer.lr=1e9", "epochs=3"): "Lower optimizer.lr",
    ("ema=1",): "ema",
    ("seed=-1",): "seed",
}


@pytest.mark.parametrize("keys", REFUSED, ids=" ".join)
def test_numbers_that_cannot_be_trained_with_are_refused_with_the_remedy(keys, place, shell, tmp_path):
    words = train(place, tmp_path / "run", *keys)
    if "batch_size=1" in keys or "accumulate=4" in keys:
        words += ("image_size=16",)  # one value a channel in the last stage
    assert shell.run(*words) == 2
    [line] = [line for line in shell.err.splitlines() if line.startswith("elastic: error: ")]
    assert REFUSED[keys] in line
    assert "a fault in the program" not in line


@pytest.mark.parametrize("keys", [("batch_size=11",), ("batch_size=3", "options.mixup=0.2")])
def test_odd_batches_are_trained(keys, place, shell, tmp_path):
    assert shell.run(*train(place, tmp_path / "run", *keys)) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["train_counts"] == {"green": 6, "red": 6}


def test_a_seed_is_a_run_to_the_bit_whatever_the_workers(place, run, shell, tmp_path):
    assert shell.run(*train(place, tmp_path / "b"), "--workers", "2") == 0
    assert shell.run(*train(place, tmp_path / "c", "seed=1")) == 0
    first, same, other = ((folder / "last.safetensors") for folder in (run, tmp_path / "b", tmp_path / "c"))
    assert first.read_bytes() == same.read_bytes()
    weights, others = load_file(first), load_file(other)
    assert any(not torch.equal(weights[name], others[name]) for name in weights)


def test_an_average_with_a_usual_decay_follows_on_small_data(place, run, shell, tmp_path):
    """With a decay of 0.9999 and no warm-up the tested weights would still be the initial ones after a few steps."""
    start = tmp_path / "start"
    assert shell.run(*train(place, start, "optimizer.lr=1e-12")) == 0
    assert shell.run(*train(place, tmp_path / "ema", "ema=0.9999")) == 0
    initial, plain, average = (
        load_file(folder / "last.safetensors")["fc.weight"] for folder in (start, run, tmp_path / "ema")
    )
    assert (average - initial).norm() > 0.3 * (plain - initial).norm()


def test_data_of_the_hub_on_the_disk(place, shell, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found = datasets.load_dataset("imagefolder", data_dir=str(place / "data"), cache_dir=str(tmp_path / "cache"))
    found.save_to_disk(str(tmp_path / "saved"))
    assert shell.run(*train(place, tmp_path / "run", data=f"hfds/{tmp_path / 'saved'}")) == 0
    assert "train: 12 photos in 2 classes" in shell.out
    assert load_checkpoint(tmp_path / "run")[1].classes == ("green", "red")
    assert shell.run(*train(place, tmp_path / "no", data=f"hfds/{tmp_path / 'gone'}")) == 2
    assert "Traceback" not in shell.err


def test_a_hub_folder_is_read_by_timm_in_a_fresh_process(run, tmp_path):
    """Its outputs, its classes and its input; and fine-tuned on other classes and channels from it."""
    network, card = load_checkpoint(run)
    save_for_hf(network, card, tmp_path / "hub")
    with torch.no_grad():
        torch.save(network(torch.ones(1, 3, 32, 32)), tmp_path / "wanted.pt")
    code = (
        "import sys, timm, torch, elastic_cnn\n"
        "network = timm.create_model('local-dir:' + sys.argv[1], pretrained=True).eval()\n"
        "torch.testing.assert_close(network(torch.ones(1, 3, 32, 32)), torch.load(sys.argv[2]))\n"
        "assert timm.data.resolve_model_data_config(network)['input_size'] == (3, 32, 32)\n"
        "assert list(network.pretrained_cfg['label_names']) == ['green', 'red']\n"
        "tuned = timm.create_model('local-dir:' + sys.argv[1], pretrained=True, num_classes=5, in_chans=1).eval()\n"
        "assert tuned(torch.ones(1, 1, 32, 32)).shape == (1, 5)\n"
        "assert torch.equal(tuned.layer4[0].conv3.weight, network.layer4[0].conv3.weight)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "hub"), str(tmp_path / "wanted.pt")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_an_uneven_test_over_two_processes_has_the_figures_of_one(place, run, shell, tmp_path):
    words = ["eval", str(run), "--data", str(place / "data"), "--workers", "0", "--no-progress", "--batch-size", "2"]
    one, two = (tmp_path / f"{devices}.json" for devices in (1, 2))
    assert shell.run(*words, "--devices", "1", "--json", one) == 0
    started = [sys.executable, "-m", "elastic_cnn", *words, "--devices", "2", "--json", str(two)]
    done = subprocess.run(started, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = [json.loads(out.read_text()) for out in (one, two)]
    assert found[0]["images"] == found[1]["images"] == 7
    assert found[0]["top1"] == found[1]["top1"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)


def test_compiled_training_is_resumed_and_its_weights_are_plain(place, shell, tmp_path, monkeypatch):
    """The weights of two runs, one compiled, differ by rounding alone; names carry no prefix.

    Without C++ behind the captured graphs, of which a network takes a minute; that is in the test below.
    """
    compiled, plain, graphs = tmp_path / "compiled", tmp_path / "plain", []
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: (graphs.append(self), original(self, backend="aot_eager"))
    )
    keys = ("--checkpoint-every", "1", "batch_size=6", "optimizer.lr=1e-3", "network_kwargs.layers=[1,1,1,1]")
    assert shell.run(*train(place, plain, *keys)) == 0
    assert graphs == []
    assert shell.run(*train(place, compiled, *keys, "compile=true")) == 0
    (compiled / "previous.ckpt").rename(compiled / "last.ckpt")  # as it was before its only validation
    assert shell.run(*train(place, compiled, *keys, "compile=true"), "--resume") == 0
    assert len(graphs) == 2
    weights, others = load_file(plain / "last.safetensors"), load_file(compiled / "last.safetensors")
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(others[name], tensor, rtol=0.05, atol=5e-3)
    assert shell.run("eval", compiled, "--data", place / "data", "--workers", "0") == 0
    assert re.search(r"7 images in", shell.out)


def test_branches_are_trained_in_compiled_code():
    """By torch's default compiler: outputs and gradients of a block's branches (float32 sums in another order)."""
    network = create_model("resnext_small_elastic", channels=[8] * 4, layers=[1] * 4)
    assert network.elastic_report.converted == ["layer1.0"]
    plain, compiled = network.layer1[0].branches, copy.deepcopy(network.layer1[0].branches)
    compiled.compile(fullgraph=True)
    x = torch.randn(2, 64, 8, 8)
    wanted, y = plain(x), compiled(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    for output in (wanted, y):
        output.square().sum().backward()
    for one, two in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-3)
