"""The demo from data to report, very small; equal under a seed; photos; bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.demo.data import PictureSamples, load_photos, normalise
from elastic_cnn.demo.measure import predict, score
from elastic_cnn.demo.run import Plan, run_demo
from elastic_cnn.policy.scores import scale_policy
from elastic_cnn.tasks.console import Console
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import InputSpec

TINY = {"images": 32, "epochs": 1, "progress": False}
QUIET = Console(False)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(out, seed=3, **TINY)


def untimed(out):
    values = json.loads((out / "results.json").read_text())
    return {key: value for key, value in values.items() if key not in ("timing", "machine")}


def test_writes_report_results_and_runs(first_run):
    out, results = first_run
    html = (out / "report.html").read_text()
    assert "Error by object size" in html
    assert html.count("data:image/svg+xml") == 12  # six charts, light and dark
    assert untimed(out)["seed"] == 3
    for name in ("resnext_small", "resnext_small_elastic"):
        assert (out / name / "last.safetensors").is_file()
    assert results.base.macs == pytest.approx(results.elastic.macs, rel=0.02)
    assert results.base.parameters == pytest.approx(results.elastic.parameters, rel=0.02)
    assert results.policy.scores.shape == (48, 8)
    assert len(results.labels) == sum(len(part.members) for part in results.bins) == 48


def test_equal_under_a_seed(first_run, tmp_path):
    out, results = first_run
    again = run_demo(tmp_path / "again", seed=3, **TINY)
    assert untimed(out) == untimed(tmp_path / "again")
    assert np.array_equal(again.elastic.predictions, results.elastic.predictions)
    assert np.array_equal(again.policy.scores, results.policy.scores)
    assert np.array_equal(again.policy.map, results.policy.map)


def test_does_not_overwrite(first_run):
    out, _ = first_run
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        run_demo(out, **TINY)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"images": 10}, "--images 10 is less than one batch of 32"),
        ({"images": 32, "epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"images": 32, "seed": -1}, "seed=-1"),
    ],
)
def test_bad_numbers(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        run_demo(tmp_path / "out", **choices)
    assert not (tmp_path / "out").exists()


def test_plan_fits_the_time():
    plan = Plan.make(False, None, None, 32)
    assert plan.images * plan.epochs_for(plan.images) <= plan.views
    assert plan.epochs_for(plan.views // 5) == 5
    assert plan.epochs_for(10 * plan.views) == 1
    assert plan.epochs_for(70) == 30
    assert Plan.make(True, None, None, 32).views < plan.views
    assert Plan.make(False, 2, None, 32).epochs_for(10) == 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes told apart by colour; one broken file."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 12)):
        for place, name in enumerate(("blue", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 80, (70, 100, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * place] += 150
                Image.fromarray(pixels).save(folder / f"{index}.png")
    (root / "train" / "red" / "broken.png").write_bytes(b"no picture")
    return root


def test_photos(photos, tmp_path, capsys):
    results = run_demo(tmp_path / "out", data=photos, epochs=1, progress=False)
    assert results.sizes is None
    assert results.bins == []
    assert results.classes == ("blue", "red")
    assert results.train_images == 80
    assert results.notes == ["1 unreadable photo(s) in train were left out."]
    assert "broken.png" in capsys.readouterr().err
    assert "sizes of the objects in these photos are not known" in (tmp_path / "out" / "report.html").read_text()
    assert untimed(tmp_path / "out")["spearman_size_score"] is None


def test_photos_are_shrunk_cropped_and_bounded(photos):
    data = load_photos(photos, 50, 10, 64, 0, InputSpec(size=(64, 64)), QUIET)
    assert isinstance(data.train, PictureSamples)
    assert min(data.train.pictures[0].size) == 80
    assert data.train[0]["image"].shape == (3, 64, 64)
    assert data.images.shape == (10, 3, 64, 64)
    assert data.images.dtype == torch.uint8
    blue = data.images[data.labels == 0].float().mean(dim=(0, 2, 3))
    assert blue[2] > blue[0] + 100
    assert any(note.startswith("50 of the 81 photos in train") for note in data.notes)


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        run_demo(tmp_path / "out", data=tmp_path / "missing", progress=False)
    for split in ("train", "val"):
        (tmp_path / "one" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (70, 70)).save(tmp_path / "one" / split / "cat" / "a.png")
    with pytest.raises(ValueError, match="one class, 'cat'"):
        run_demo(tmp_path / "out", data=tmp_path / "one", progress=False)
    for split in ("train", "val"):
        (tmp_path / "one" / split / "dog").mkdir()
        Image.new("RGB", (70, 70)).save(tmp_path / "one" / split / "dog" / "a.png")
    with pytest.raises(ValueError, match="2 images to train on, one batch takes 32"):
        run_demo(tmp_path / "out", data=tmp_path / "one", progress=False)


def test_answers_and_scores_are_those_of_the_network():
    """In batches and channels last as in one piece (tolerance: convolution algorithms differ in float32)."""
    network = create_model("resnext_small_elastic", num_classes=10).eval()
    images = torch.randint(0, 256, (103, 3, 32, 32), dtype=torch.uint8)
    spec = InputSpec(size=(32, 32))
    whole = normalise(images, spec)
    with torch.no_grad():
        logits = network(whole)
    answers = predict(network, images, spec, QUIET)
    assert (answers == logits.argmax(dim=1).numpy()).mean() > 0.97  # ties of an untrained network may fall either way
    torch.testing.assert_close(torch.from_numpy(score(network, images, spec, QUIET)), scale_policy(network, whole))
    mean = torch.tensor(spec.mean).view(3, 1, 1)
    assert torch.allclose(whole * torch.tensor(spec.std).view(3, 1, 1) + mean, images / 255, atol=1e-6)
