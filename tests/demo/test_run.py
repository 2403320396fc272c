"""The demo from data to report, very small; equal under a seed; photos; bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.demo.data import PictureSamples, load_photos
from elastic_cnn.demo.measure import predict, score
from elastic_cnn.demo.plan import Pace, Plan, fit
from elastic_cnn.demo.run import Choices, run_demo
from elastic_cnn.demo.workers import Workers
from elastic_cnn.policy.scores import scale_policy
from elastic_cnn.policy.table import read_policy
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.training import Interrupted
from elastic_cnn.zoo import create_model
from elastic_cnn.zoo.checkpoint import InputSpec

TINY = {"images": 32, "epochs": 1, "processes": 0}
QUIET = Console(False)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    out, threads = tmp_path_factory.mktemp("demo") / "out", torch.get_num_threads()
    torch.set_num_threads(1)  # as in processes of their own
    try:
        return out, run_demo(out, Choices(seed=3, seeds=2, **TINY), progress=False)
    finally:
        torch.set_num_threads(threads)


def untimed(out):
    values = json.loads((out / "results.json").read_text())
    return {key: value for key, value in values.items() if key not in ("timing", "machine")}


def test_writes_report_results_and_runs(first_run):
    out, results = first_run
    html = (out / "report.html").read_text()
    assert "Error by object size" in html
    assert html.count("data:image/svg+xml") == 6  # three charts, light and dark
    assert untimed(out)["seeds"] == [3, 4]
    for name in ("resnext_small", "resnext_small_elastic"):
        for seed in (3, 4):
            assert (out / "runs" / f"{name}-seed{seed}" / "last.safetensors").is_file()
    assert results.base.macs == pytest.approx(results.elastic.macs, rel=0.02)
    assert results.base.parameters == pytest.approx(results.elastic.parameters, rel=0.02)
    assert results.policy.scores.shape == (48, 8)
    assert len(results.labels) == sum(len(part.members) for part in results.bins) == 48
    assert [run.error for run in results.base.runs] == [
        float((run.predictions != results.labels).mean()) for run in results.base.runs
    ]
    assert results.sizes.max() <= 40
    assert results.converted.macs_ratio < 1
    assert set(results.speed.images_per_s) == {"base", "elastic", "converted"}


def test_the_explorer_holds_the_compared_images(first_run):
    out, results = first_run
    table = read_policy(out / "policy.parquet")
    assert (out / "explorer" / "index.html").is_file()
    assert 'href="explorer/index.html"' in (out / "report.html").read_text()
    np.testing.assert_array_equal(table.scores, results.policy.scores)
    names = np.array(results.classes)
    assert table.column("prediction") == names[results.elastic.runs[0].predictions].tolist()
    assert table.column("base_prediction") == names[results.base.runs[0].predictions].tolist()
    assert [sizes[0] for sizes in table.column("object_sizes")] == pytest.approx(results.sizes.tolist())


def test_equal_under_a_seed_and_in_processes_of_their_own(first_run, tmp_path):
    out, one = first_run
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        two = run_demo(tmp_path / "two", Choices(seed=3, seeds=2, **{**TINY, "processes": 2}), progress=False)
    finally:
        torch.set_num_threads(threads)
    assert untimed(out) == untimed(tmp_path / "two")
    assert np.array_equal(one.policy.map, two.policy.map)


def test_does_not_overwrite(first_run):
    out, _ = first_run
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        run_demo(out, Choices(seeds=1, **TINY))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"images": 10}, "--images 10 is less than one batch of 32"),
        ({"images": 32, "epochs": 0}, "--epochs must be at least 1, got 0"),
        ({"images": 32, "seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"images": 32, "seed": -1}, "seed=-1"),
        ({"minutes": 0}, "--minutes 0 must be more than 0"),
    ],
)
def test_bad_numbers(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message):
        run_demo(tmp_path / "out", Choices(**choices))
    assert not (tmp_path / "out").exists()


def test_plan_fits_the_time():
    plan = Plan.make(False, None, None, None, 32)
    assert plan.images * plan.epochs_for(plan.images) <= plan.views
    assert plan.epochs_for(10 * plan.views) == 1
    assert plan.epochs_for(70) == 30
    assert Plan.make(True, None, None, None, 32).views < plan.views
    assert Plan.make(False, 2, None, None, 32).epochs_for(10) == 2
    assert Plan.make(False, None, None, 5, 32).seeds == 5


@pytest.mark.parametrize(
    ("seconds", "workers", "seeds", "views"),
    [
        (0.001, 2, 8, 16_000),  # 16 s for a pair of runs: more than eight would fit
        (0.005, 2, 6, 16_000),  # 80 s a pair, 480 s of two processors
        (0.02, 1, 3, 4_000),  # 320 s a pair: three seeds at the fewest views
        (0.012, 2, 3, 13_333),
    ],
)
def test_seeds_and_views_follow_the_pace_of_the_machine(seconds, workers, seeds, views):
    plan = fit(Plan.make(False, None, None, None, 32), Pace(seconds, "fp32"), 8, workers)
    assert (plan.seeds, plan.views) == (seeds, views)
    asked = fit(Plan.make(False, None, None, 2, 32), Pace(seconds, "fp32"), 8, workers)
    assert (asked.seeds, asked.views) == (2, 16_000)


def test_a_signal_in_a_run_ends_the_demo(monkeypatch):
    monkeypatch.setattr("elastic_cnn.demo.workers._train", lambda task: None)
    with Workers(None, 0) as workers, pytest.raises(Interrupted):
        workers.train([None], lambda *_: None)


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
    results = run_demo(tmp_path / "out", Choices(data=photos, epochs=1, seeds=1, processes=1), progress=False)
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
        run_demo(tmp_path / "out", Choices(data=tmp_path / "missing"), progress=False)
    for split in ("train", "val"):
        (tmp_path / "one" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (70, 70)).save(tmp_path / "one" / split / "cat" / "a.png")
    with pytest.raises(ValueError, match="one class, 'cat'"):
        run_demo(tmp_path / "out", Choices(data=tmp_path / "one"), progress=False)
    for split in ("train", "val"):
        (tmp_path / "one" / split / "dog").mkdir()
        Image.new("RGB", (70, 70)).save(tmp_path / "one" / split / "dog" / "a.png")
    with pytest.raises(ValueError, match="2 images to train on, one batch takes 32"):
        run_demo(tmp_path / "out", Choices(data=tmp_path / "one"), progress=False)


def test_answers_and_scores_are_those_of_the_network():
    """In batches and channels last as in one piece (tolerance: convolution algorithms differ in float32)."""
    network = create_model("resnext_small_elastic", num_classes=10).eval()
    images = torch.randint(0, 256, (103, 3, 32, 32), dtype=torch.uint8)
    spec = InputSpec(size=(32, 32))
    whole = normalise(images, spec.mean, spec.std)
    with torch.no_grad():
        logits = network(whole)
    answers, confidence = predict(network, images, spec, QUIET)
    assert (answers == logits.argmax(dim=1).numpy()).mean() > 0.97  # ties of an untrained network may fall either way
    torch.testing.assert_close(torch.from_numpy(confidence), logits.softmax(1).max(1).values)
    torch.testing.assert_close(torch.from_numpy(score(network, images, spec, QUIET)), scale_policy(network, whole))
    mean = torch.tensor(spec.mean).view(3, 1, 1)
    assert torch.allclose(whole * torch.tensor(spec.std).view(3, 1, 1) + mean, images / 255, atol=1e-6)
