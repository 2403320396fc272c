"""What fine-tuning adds to a run: frozen parts, weights against skew, patience, longer runs, converted networks."""

import csv
import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from elastic_cnn.tasks.classification import Classification, Options, build
from elastic_cnn.tasks.find_rate import steepest, with_found_rate
from elastic_cnn.tasks.freeze import Frozen
from elastic_cnn.tasks.recipe import Convert, Optimizer, Recipe, Schedule, load_recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import Console, Interrupted, train
from elastic_cnn.zoo.checkpoint import load_checkpoint, read_card
from elastic_cnn.zoo.factory import create_model

KWARGS = {"stem_width": 8, "channels": [8, 8, 16, 16]}
CPU = Settings(accelerator="cpu")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory) -> Path:
    """Class folders that nobody divided: 16 dark photos and 4 light ones."""
    root, rng = tmp_path_factory.mktemp("skewed") / "photos", np.random.default_rng(0)
    for level, (name, count) in enumerate((("dark", 16), ("light", 4))):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(120 * level, 120 * level + 100, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def small(**changes) -> Recipe:
    usual = {
        "network": "resnet10t", "network_kwargs": KWARGS, "image_size": 32, "batch_size": 4,
        "epochs": 2, "log_every": 1, "optimizer": Optimizer(lr=0.02), "schedule": Schedule("constant"),
        "options": {"split": 0.25},
    }  # fmt: skip
    return Recipe(**{**usual, **changes})


@pytest.mark.parametrize("mixed", [False, True])
def test_weighted_losses_equal_those_written_out(mixed):
    torch.manual_seed(0)
    logits, smoothing = torch.randn(6, 3, dtype=torch.float64), 0.1
    targets, weights = torch.tensor([0, 1, 2, 2, 2, 2]), torch.tensor([2.0, 2.0, 0.5])
    task = Classification(torch.nn.Identity(), 3, Options(label_smoothing=smoothing), weights)
    wished = torch.nn.functional.one_hot(targets, 3).double()
    if mixed:
        wished = 0.7 * wished + 0.3 * wished.flip(0)
        loss = task._loss(logits, wished, 0.0)
    else:
        loss = task.training_step({"image": logits, "target": targets}, 0)
    expected = 0.0
    for row, wish in zip(logits.tolist(), wished.tolist(), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        own = [w * (1 - smoothing) + smoothing / 3 for w in wish] if not mixed else wish
        each = sum(part * (norm - value) for part, value in zip(own, row, strict=True))
        expected += each * sum(w * k for w, k in zip(wish, (2.0, 2.0, 0.5), strict=True)) / 6
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_weights_and_sampling_follow_the_counts_of_the_training_photos(skewed):
    by_weight = build(small(options={"split": 0.25, "skew": "weights"}), str(skewed), CPU)
    assert by_weight.task.weights.tolist() == pytest.approx([15 / (2 * 12), 15 / (2 * 3)])
    assert by_weight.balance is None
    by_sampling = build(small(options={"split": 0.25, "skew": "sampling"}), str(skewed), CPU)
    assert by_sampling.task.weights is None
    assert by_sampling.balance == [0] * 12 + [1] * 3


@pytest.mark.parametrize(
    ("freeze", "frozen"), [(1, ("conv1", "bn1")), (3, ("conv1", "bn1", "layer1", "layer2")), ("backbone", ("",))]
)
def test_frozen_parts_keep_weights_and_statistics(freeze, frozen, skewed, tmp_path):
    recipe = small(freeze=freeze, epochs=1)
    before = build(recipe, str(skewed), CPU).task.network.state_dict()
    train(recipe, skewed, tmp_path / "run", CPU)
    after = load_file(tmp_path / "run" / "last.safetensors")
    for name, tensor in before.items():
        if name.endswith("num_batches_tracked"):
            continue
        still = name.startswith(frozen) and not name.startswith("fc")
        assert torch.equal(tensor, after[name]) == still, name


@pytest.mark.parametrize(
    ("network", "freeze", "says"),
    [
        ("resnet10t", 6, "has 6 parts with its classifier"),
        ("deeplabv3_resnext50", 1, "does not tell its stages"),
        ("deeplabv3_resnext50", "backbone", "no classifier that could learn alone"),
    ],
)
def test_what_cannot_be_frozen_is_said(network, freeze, says):
    with torch.device("meta"), pytest.raises(ValueError, match=says):
        Frozen(create_model(network), freeze)


def test_patience_stops_a_run_and_a_resume_does_not_go_on(skewed, tmp_path, capsys):
    recipe = small(epochs=9, patience=2, optimizer=Optimizer(lr=1e-9))  # nothing is learnt: epoch 1 stays the best
    summary = train(recipe, skewed, tmp_path / "run", CPU)
    assert (summary.best_epoch, summary.epochs_done, summary.epochs) == (1, 3, 9)
    assert "no epoch was better than 1: stopped after 3 (patience=2)" in capsys.readouterr().out
    assert train(recipe, skewed, tmp_path / "run", replace(CPU, resume=True)).epochs_done == 3


def test_the_rate_that_is_logged_is_the_recipes(skewed, tmp_path):
    """Not that of the first layers, which `layer_decay` makes a small part of it."""
    train(small(optimizer=Optimizer(lr=0.02, options={"layer_decay": 0.5})), skewed, tmp_path / "run", CPU)
    rows = list(csv.DictReader((tmp_path / "run" / "train.csv").read_text().splitlines()))
    assert {float(row["lr"]) for row in rows} == {0.02}


def test_a_run_is_extended_and_no_other_key_may_change(skewed, tmp_path):
    recipe, out = small(), tmp_path / "run"
    train(recipe, skewed, out, CPU)
    on = replace(CPU, resume=True)
    with pytest.raises(ValueError, match=r"started with epochs=2 \(now 3\).*--extend epochs=N"):
        train(replace(recipe, epochs=3), skewed, out, on)
    with pytest.raises(ValueError, match="started with seed=0"):
        train(replace(recipe, epochs=3, seed=1), skewed, out, replace(on, extend=True))
    assert train(replace(recipe, epochs=3), skewed, out, replace(on, extend=True)).steps == 9
    train(replace(recipe, epochs=3), skewed, tmp_path / "whole", CPU)  # the rate is constant: the very same run
    same = [(place / "last.safetensors").read_bytes() for place in (out, tmp_path / "whole")]
    assert same[0] == same[1]
    assert RunFolder(out).recipe().epochs == 3


def test_a_converted_run_resumes_from_its_own_conversion(skewed, tmp_path, monkeypatch):
    """The conversion is done once; a run that is interrupted ends as one that was not, to the bit."""
    recipe = small(elastic=True, convert=Convert(photos=8))
    train(recipe, skewed, tmp_path / "whole", CPU)
    from elastic_cnn.tasks.loop import Loop

    original = Loop._optimizer_step

    def interrupted(self, parts):
        signal.raise_signal(signal.SIGTERM)
        return original(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_optimizer_step", interrupted)
        with pytest.raises(Interrupted):
            train(recipe, skewed, tmp_path / "run", CPU)
    monkeypatch.setattr("elastic_cnn.conversion.convert", None)  # not called again
    train(recipe, skewed, tmp_path / "run", replace(CPU, resume=True))
    for name in ("last.safetensors", "start.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    _, card = load_checkpoint(tmp_path / "run" / "start.safetensors")
    assert card.elastic is not None
    assert card.info["conversion"]["photos"] == 8
    assert read_card(tmp_path / "run" / "best.safetensors").info["conversion"]["photos"] == 8
    (tmp_path / "run" / "start.safetensors").unlink()
    with pytest.raises(ValueError, match=r"start.safetensors is gone"):
        train(recipe, skewed, tmp_path / "run", replace(CPU, resume=True))


def test_the_conversion_is_that_of_the_package_on_the_same_photos(skewed):
    """Labels play no part, and the division alone would be further from the network's own features."""
    from elastic_cnn import convert, elasticize

    job = build(small(elastic=True, convert=Convert(photos=6)), str(skewed), CPU)
    base = build(small(), str(skewed), CPU).task.network.eval()
    order = np.random.default_rng(0).permutation(len(job.train))[:6]
    job.train.transform = job.val.transform
    photos = torch.stack([job.train[int(index)]["image"] for index in order])
    by_hand = convert(base, photos)
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(job.task.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert elasticize(base).elastic_report.converted == job.task.network.elastic_report.converted


def test_a_checkpoint_of_other_classes_gets_a_new_classifier(skewed, tmp_path, capsys):
    train(small(elastic=True, convert=Convert(photos=4), epochs=1), skewed, tmp_path / "one", CPU)
    (tmp_path / "data").mkdir()
    for name in ("dark", "light"):
        (tmp_path / "data" / name).symlink_to(skewed / name)
    shutil.copytree(skewed / "dark", tmp_path / "data" / "other")
    recipe = replace(small(epochs=1), network=None, network_kwargs={}, weights=str(tmp_path / "one"))
    job = build(recipe, str(tmp_path / "data"), CPU)
    assert "with 2 classes: its classifier is new" in capsys.readouterr().out
    assert job.card.classes == ("dark", "light", "other")
    kept = load_file(tmp_path / "one" / "best.safetensors")
    own = job.task.network.state_dict()
    new = {name for name in own if own[name].shape != kept[name].shape or not torch.equal(own[name], kept[name])}
    assert new == {"fc.weight", "fc.bias"}
    train(recipe, tmp_path / "data", tmp_path / "two", CPU)
    assert load_checkpoint(tmp_path / "two")[1].elastic is not None


def test_weights_from_a_place_that_timm_knows(skewed, tmp_path):
    """`local-dir:` and `hf-hub:` are read by the same code of timm's; the card names the architecture."""
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", **KWARGS, num_classes=7)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "resnet10t", "num_classes": 7, "model_args": KWARGS,
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 7, "input_size": [3, 64, 64],
                           "first_conv": "conv1.0", "classifier": "fc"},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = replace(small(epochs=1), network=f"local-dir:{tmp_path}", network_kwargs={})
    job = build(recipe, str(skewed), CPU)
    assert (job.card.network, job.card.kwargs["num_classes"], job.card.input.mean) == ("resnet10t", 2, (0.5,) * 3)
    own = job.task.network.state_dict()
    assert all(torch.equal(own[name], t) for name, t in network.state_dict().items() if not name.startswith("fc"))
    assert own["fc.weight"].shape == (2, 16)
    train(recipe, skewed, tmp_path / "run", CPU)
    assert load_checkpoint(tmp_path / "run")[1].network == "resnet10t"
    with pytest.raises(ValueError, match=r"the network local-dir:nowhere cannot be had from here .*give weights=FILE"):
        build(replace(recipe, network="local-dir:nowhere"), str(skewed), CPU)


def test_the_steepest_fall_is_found_where_it_was_put():
    rates = [10 ** (-6 + 6 * step / 79) for step in range(80)]
    losses = [2.0 - 1.5 / (1 + math.exp(-4 * (math.log10(rate) + 2.5))) for rate in rates]
    assert 10**-2.8 < steepest(rates, losses) < 10**-2.2
    with pytest.raises(ValueError, match="the loss falls at no rate"):
        steepest(rates, [1.0 + rate for rate in rates])


def test_a_range_test_leaves_the_job_and_the_generators_alone(skewed, capsys):
    recipe = small(freeze=1)
    job = build(recipe, str(skewed), CPU)
    before = {name: tensor.clone() for name, tensor in job.task.state_dict().items()}
    generator = torch.random.get_rng_state()
    found = with_found_rate(job, recipe, CPU, Console(False))
    assert torch.equal(generator, torch.random.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in job.task.state_dict().items())
    assert 1e-6 < found.optimizer.lr < 1
    assert replace(found, optimizer=recipe.optimizer) == recipe
    assert f"learning rate found: {found.optimizer.lr:.2g} (in place of 0.02)" in capsys.readouterr().out


def test_the_recipe_for_photos_of_ones_own_needs_but_a_folder():
    recipe = load_recipe("finetune")
    assert (recipe.weights, recipe.options["split"], recipe.patience) == ("timm", 0.2, 4)
    with pytest.raises(ValueError, match="convert would do nothing without elastic=true"):
        load_recipe("finetune", ["convert.photos=8"])
