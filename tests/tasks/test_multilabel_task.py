"""The multi-label task on the engine: losses, weights, results, and the shipped recipes."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from coco_files import write_coco
from PIL import Image
from sklearn.metrics import f1_score

from elastic_cnn.data.image_folder import eval_transform
from elastic_cnn.data.sampler import TestBatches, make_loader
from elastic_cnn.tasks.multilabel import Multilabel, Options, build, build_test, cross_entropy
from elastic_cnn.tasks.recipe import Recipe, load_recipe, recipe_file, recipe_names
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import evaluate, train
from elastic_cnn.zoo.checkpoint import load_checkpoint, read_card
from elastic_cnn.zoo.factory import create_model, is_known

NARROW = {"stem_width": 8, "channels": [8, 8, 16, 16]}


def make_recipe(**changes) -> Recipe:
    values = {
        "task": "multilabel",
        "network": "resnet10t",
        "network_kwargs": NARROW,
        "image_size": 32,
        "epochs": 1,
        "batch_size": 8,
        "options": {"exclude": ["white"], "min_scale": 0.8},
    }
    return Recipe(**{**values, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"), {"train": 32, "val": 17})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """The folder of a short run of a network that is made elastic, and its summary."""
    out = tmp_path_factory.mktemp("run")
    recipe = make_recipe(network="resnext_small", network_kwargs={}, elastic=True, epochs=2)
    return out, train(recipe, data, out, Settings("cpu", progress=False))


def test_the_loss_is_summed_over_classes_and_averaged_over_images():
    task = Multilabel(torch.nn.Identity(), "abcde")
    logits, targets = torch.randn(3, 5), torch.randint(0, 2, (3, 5)).float()
    slow = 0.0
    for n in range(3):
        for c in range(5):
            p = 1 / (1 + math.exp(-logits[n, c].item()))
            slow -= math.log(p if targets[n, c] else 1 - p) / 3
    loss = task.training_step({"image": logits, "targets": targets}, 0)
    assert loss.item() == pytest.approx(slow, rel=1e-5)  # float32 against float64
    assert cross_entropy(logits, targets).shape == (3,)


def test_the_asymmetric_loss_is_that_of_its_paper():
    """Ridnik et al. 2021, equations 5 to 7, one label at a time."""
    options = Options(loss="asymmetric", gamma_negative=3, gamma_positive=1, clip=0.1)
    logits, targets = torch.randn(4, 6), torch.randint(0, 2, (4, 6)).float()
    slow = 0.0
    for z, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        shifted = max(p - 0.1, 0)
        slow -= ((1 - p) * math.log(p) if y else shifted**3 * math.log(1 - shifted)) / 4
    loss = Multilabel(torch.nn.Identity(), "abcdef", options).training_step({"image": logits, "targets": targets}, 0)
    assert loss.item() == pytest.approx(slow, rel=1e-4)  # timm clamps probabilities at 1e-8


def test_results_equal_scikit_learn_on_the_whole_split(run, data):
    out, _ = run
    results = evaluate(out, data, settings=Settings("cpu", progress=False), options=TestOptions(batch_size=5))
    network, card = load_checkpoint(out)
    _, samples = build_test(network, card, str(data), "val", TestOptions())
    with torch.no_grad():
        logits = torch.stack([network(samples[i]["image"][None])[0] for i in range(len(samples))])
    truth, predicted = samples.annotations.targets, (logits.sigmoid() > 0.5).numpy()
    assert list(card.classes) == results["class_names"] == ["green", "red", "blue"]
    assert results["images"] == 17
    assert results["f1_per_class"] == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    assert results["f1_overall"] == pytest.approx(f1_score(truth, predicted, average="micro", zero_division=0))
    assert results["class_positives"] == truth.sum(0).tolist()
    assert len(results["class_f1_small"]) == len(results["class_average_precision"]) == 3
    expected = cross_entropy(logits, torch.from_numpy(truth).float()).mean().item()
    assert results["loss"] == pytest.approx(expected, rel=1e-5)  # another batch size, float32
    json.dumps(results, allow_nan=False)


def test_test_images_are_squashed_to_the_square(run, data):
    out, _ = run
    card = read_card(out)
    assert (card.input.crop_mode, card.input.size) == ("squash", (32, 32))
    _, samples = build_test(None, card, str(data), "val", TestOptions(image_size=48))
    photo = samples[0]["image"]
    assert photo.shape == (3, 48, 48)
    plain = eval_transform((48, 48), card.input.mean, card.input.std, card.input.interpolation, 1.0, "squash")
    with Image.open(data / samples.path(0)) as file:
        torch.testing.assert_close(photo, plain(file.convert("RGB")), rtol=0, atol=0)
        by_hand = np.asarray(file.convert("RGB").resize((48, 48), Image.Resampling.BICUBIC), np.float32) / 255
    if card.input.interpolation == "bicubic":
        by_hand = (by_hand - np.array(card.input.mean)) / np.array(card.input.std)
        np.testing.assert_allclose(photo.permute(1, 2, 0), by_hand, atol=1e-5)


def test_a_run_learns_and_its_checkpoint_says_what_it_needs(run):
    out, summary = run
    assert summary.metric == "map"
    card = read_card(out)
    assert card.elastic is not None
    assert card.info["data"] == {"exclude": ["white"], "crowds": "label", "zero_area": "error"}
    assert (out / "val.csv").read_text().splitlines()[0].count("f1_") == 9  # no object is small


def test_weights_of_the_backbone_load_and_the_head_is_new(data, tmp_path, capsys):
    donor = create_model("resnet10t", **NARROW, num_classes=11)
    torch.save(donor.state_dict(), tmp_path / "donor.pth")
    job = build(make_recipe(weights=str(tmp_path / "donor.pth")), str(data), Settings())
    printed = capsys.readouterr().out
    assert "of another shape, so new: fc.weight, fc.bias" in printed
    torch.testing.assert_close(job.task.network.layer3[0].conv1.weight, donor.layer3[0].conv1.weight, rtol=0, atol=0)
    assert job.task.network.fc.weight.shape == (3, 16)


def test_the_head_may_have_its_own_learning_rate(data):
    job = build(make_recipe(options={"head_lr_factor": 7.0, "exclude": ["white"]}), str(data), Settings())
    groups = {group.name: dict(group.parameters) for group in job.task.parameter_groups()}
    assert set(groups["head"]) == {"fc.weight", "fc.bias"}
    assert set(groups["head"]) | set(groups["backbone"]) == dict(job.task.network.named_parameters()).keys()
    assert [group.lr_factor for group in job.task.parameter_groups()] == [1.0, 7.0]


def test_data_of_other_classes_is_refused(run, tmp_path):
    out, _ = run
    root = write_coco(tmp_path / "other", {"train": 8, "val": 4})
    path = root / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"blue"', '"black"'))
    message = (
        r"instances_val\.json has objects of 'black', which the classes to choose from lack \('green', 'red', 'blue'\)"
    )
    with pytest.raises(ValueError, match=message):
        build_test(None, read_card(out), str(root), "val", TestOptions())
    with pytest.raises(ValueError, match=message):
        build(make_recipe(), str(root), Settings())


def test_a_split_of_broken_images_is_told(run, tmp_path):
    root = write_coco(tmp_path / "broken", {"val": 2})
    for path in (root / "images" / "val").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no photo of .* could be read"):
        evaluate(run[0], root, settings=Settings("cpu", progress=False))


@pytest.mark.parametrize(
    "options", [{"clip": 1.0}, {"min_scale": 0}, {"gamma_negative": -1}, {"head_lr_factor": 0}, {"color_jitter": -0.1}]
)
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match=f"options.{next(iter(options))}="):
        Options(**options)


COCO_RECIPES = [name for name in recipe_names() if name.startswith("coco")]


@pytest.mark.parametrize("name", COCO_RECIPES)
def test_shipped_recipes_load_and_fit_the_task(name, data):
    recipe = load_recipe(name, ["options.train_split=train", "options.val_split=val"])
    assert recipe.task == "multilabel"
    small = replace(recipe, network="resnet10t", network_kwargs=NARROW, batch_size=8)
    job = build(small, str(data), Settings())
    loader = make_loader(job.train, TestBatches(8, 8), seed=0)
    loss = job.task.training_step(next(iter(loader)), 0)
    assert torch.isfinite(loss)
    assert loss.ndim == 0
    text = recipe_file(name).read_text()
    for word in ("Paper row", "Departures", "Expected", f"Command: elastic train {name} "):
        assert word in text


def test_the_papers_recipe_is_the_papers():
    recipe = load_recipe("coco_paper")
    assert (recipe.epochs, recipe.batch_size, recipe.image_size) == (36, 96, 224)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.momentum) == (1e-3, 5e-4, 0.9)
    assert (recipe.schedule.name, recipe.schedule.milestones, recipe.schedule.factor) == ("step", (24, 30), 0.1)
    rows = re.findall(r"(\w+) +\d\d\.\d\d / \d\d\.\d\d(?= |$)", recipe_file("coco_paper").read_text(), re.MULTILINE)
    networks = {row for row in rows if is_known(row)}
    assert networks == {
        *("resnet101", "densenet201", "densenet201_elastic", "dla60x", "dla60x_elastic"),
        *("resnext50", "resnext50_elastic", "resnext101", "resnext101_elastic"),
    }


@pytest.mark.slow
def test_two_processes_test_like_one_to_the_last_digit(run, data, tmp_path):
    """17 images over 2 processes: 9 and 8. Batches of one, so that the arithmetic of an image is the same."""
    out, _ = run
    expected = evaluate(out, data, options=TestOptions(batch_size=1), settings=Settings("cpu", progress=False))
    path = tmp_path / "results.json"
    command = [sys.executable, "-m", "elastic_cnn", "eval", str(out), "--data", str(data), "--batch-size", "1"]
    command += ["--accelerator", "cpu", "--workers", "0", "--devices", "2", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    for name in ("images_per_s", "seconds"):
        expected.pop(name)
    assert {name: found[name] for name in expected} == expected
