"""The embedded data set: true sizes, scan-disjoint splits, images that depend on (seed, split, index) alone."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from elastic_cnn.data.digits import CLASSES, DigitsSpec, make_digits, make_scene, split_scans, write_digits


@pytest.fixture(scope="module")
def val():
    return make_digits("val", 400)


def test_shapes_types_and_ranges(val):
    assert val.images.shape == (400, 3, 64, 64)
    assert val.images.dtype == torch.uint8
    assert val.labels.dtype == torch.int64
    assert val.sizes.min() >= 8
    assert val.sizes.max() <= 48
    assert set(val.labels.tolist()) == set(range(10))
    image, label = val[3]
    assert torch.equal(image, val.images[3])
    assert label == val.labels[3]
    assert len(val.first(7)) == 7
    assert len(val.first(1000)) == 400


def test_without_clutter_the_same_digits_lie_over_their_gradients_alone():
    """Same scans, sizes, places and ink to the noise's level (0.04 of 1); around them fewer and smaller steps."""
    whole, plain = (make_digits("val", 60, DigitsSpec(seed=3, clutter=clutter)) for clutter in (True, False))
    for name in ("labels", "sizes", "scans"):
        assert torch.equal(getattr(whole, name), getattr(plain, name))
    roughness = []
    for index in range(60):
        mask = make_scene("val", index, DigitsSpec(seed=3)).mask
        inside, outside = mask > 0.99, mask < 0.01
        both = [images.images[index].permute(1, 2, 0).numpy().astype(int) for images in (whole, plain)]
        assert inside.sum() < 3 or np.abs(both[0] - both[1])[inside].max() <= 4
        roughness.append([np.abs(np.diff(image.mean(-1), axis=1))[outside[:, 1:]].mean() for image in both])
    rough, smooth = np.array(roughness).T
    assert (smooth <= 1.001 * rough).all()
    assert smooth.mean() < 0.8 * rough.mean()


def test_labels_are_those_of_the_scans(val):
    assert np.array_equal(load_digits().target[val.scans.numpy()], val.labels.numpy())


def test_sizes_are_log_uniform(val):
    """Quarters of the logarithmic range hold a quarter each: 100 +- 4.4 standard deviations of the binomial (8.7)."""
    edges = 8 * 6 ** (np.arange(5) / 4)
    counts, _ = np.histogram(val.sizes.numpy(), edges)
    assert counts.sum() == 400
    assert np.abs(counts - 100).max() < 38


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 5000), seed=st.integers(0, 20), split=st.sampled_from(["train", "val"]))
def test_size_is_the_height_of_the_ink(index, seed, split):
    """Measured on the pixels of the mask: rows with ink above one half. The ink of a scan's first and last row may be
    faint, so the soft edge lies up to one cell (size / 8) inside either end; rounding to rows adds a pixel."""
    scene = make_scene(split, index, DigitsSpec(seed=seed))
    rows = np.flatnonzero((scene.mask > 0.5).any(axis=1))
    measured = rows[-1] - rows[0] + 1
    cell = scene.size / 8
    assert scene.size - 2 * cell - 1 <= measured <= scene.size + cell + 1


def test_sizes_hold_on_average():
    """The ink's edge is the contour at 0.35 between a full and an empty cell: up to 0.15 of a cell outside either end,
    so heights may exceed the recorded size by 2 x 0.15 / 8 = 3.75 per cent, and a pixel for counting whole rows."""

    def mean_height(size: float) -> float:
        spec = DigitsSpec(sizes=(size, size))
        return float(np.mean([(make_scene("train", i, spec).mask > 0.5).any(axis=1).sum() for i in range(200)]))

    heights = {size: mean_height(size) for size in (12.0, 24.0, 48.0)}
    for size, height in heights.items():
        assert 0 <= height - size <= 0.0375 * size + 1
    assert heights[48] - heights[12] == pytest.approx(36, abs=0.0375 * 36 + 0.5)


def test_enlarging_scales_the_area_of_the_ink():
    """The same scans at twice the height cover four times as many pixels (within 10%: edges are soft)."""
    small, large = (
        np.mean([make_scene("train", i, DigitsSpec(sizes=(size, size))).mask.sum() for i in range(100)])
        for size in (20.0, 40.0)
    )
    assert large / small == pytest.approx(4, rel=0.1)


def test_digit_is_whole_and_brighter_than_the_clutter():
    """Ink of 0.8 or more on clutter of 0.62 or less, noise of 0.04 on top: medians are apart by 0.18 at least."""
    spec = DigitsSpec()
    for index in range(100):
        scene = make_scene("val", index, spec)
        grey = scene.image.mean(axis=2) / 255
        ink = scene.mask > 0.9
        assert scene.mask.sum() > 0.05 * scene.size**2
        assert ink.any()
        assert np.median(grey[ink]) > 0.76
        assert np.percentile(grey[scene.mask == 0], 95) < 0.7


def test_splits_share_no_scan_and_cover_all():
    train, val = split_scans("train"), split_scans("val")
    assert not set(train) & set(val)
    assert sorted([*train, *val]) == list(range(1797))
    shares = np.bincount(load_digits().target[val]) / np.bincount(load_digits().target)
    assert shares == pytest.approx(0.2, abs=0.01)


def test_images_use_scans_of_their_split_only(val, monkeypatch):
    """Clutter included: blanking every train scan changes no val image."""
    from elastic_cnn.data import digits

    pictures, targets = digits._load_scans()
    blanked = pictures.copy()
    blanked[split_scans("train")] = 0
    monkeypatch.setattr(digits, "_load_scans", lambda: (blanked, targets))
    assert set(val.scans.tolist()) <= set(split_scans("val"))
    assert torch.equal(make_digits("val", 60).images, val.images[:60])


def test_image_depends_on_seed_split_and_index_alone(val):
    assert torch.equal(make_digits("val", 20).images, val.images[:20])
    assert np.array_equal(make_scene("val", 17, DigitsSpec()).image, val.images[17].permute(1, 2, 0).numpy())
    assert not torch.equal(make_digits("val", 20, DigitsSpec(seed=1)).images, val.images[:20])
    assert not torch.equal(make_digits("train", 20).images, val.images[:20])


def test_images_do_not_drift():
    """Frozen: the mean colour of the first images and their sizes; a change of the generator must be deliberate."""
    data = make_digits("train", 4)
    means = data.images.float().mean(dim=(1, 2, 3)).tolist()
    assert means == pytest.approx(FROZEN_MEANS, abs=0.5)
    assert data.sizes.tolist() == pytest.approx(FROZEN_SIZES, abs=1e-3)


FROZEN_MEANS = [34.5, 74.1, 54.5, 76.6]
FROZEN_SIZES = [25.046, 17.892, 24.407, 31.477]


@pytest.mark.parametrize("side", [48, 65, 128])
def test_other_image_sizes(side):
    assert make_digits("val", 2, DigitsSpec(image_size=side, sizes=(8, 40))).images.shape == (2, 3, side, side)


def test_progress_counts_every_image():
    calls: list[int] = []
    make_digits("val", 5, progress=calls.append)
    assert sum(calls) == 5


def test_write_digits(tmp_path):
    root = write_digits(tmp_path / "digits", {"train": 6, "val": 4})
    with (root / "sizes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    expected = make_digits("val", 4)
    for index, row in enumerate(rows[6:]):
        image = np.asarray(Image.open(root / row["path"]))
        assert np.array_equal(image, expected.images[index].permute(1, 2, 0).numpy())
        assert row["path"].split("/")[:2] == ["val", CLASSES[expected.labels[index]]]
        assert float(row["size"]) == pytest.approx(float(expected.sizes[index]), abs=1e-3)
    with pytest.raises(ValueError, match="exists already"):
        write_digits(root, {"train": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": (4, 20)}, "8 or more"),
        ({"sizes": (30, 20)}, "smaller first"),
        ({"sizes": (8, 65)}, "do not fit an image of 64"),
        ({"seed": -1}, "negative"),
    ],
)
def test_impossible_specs(values, message):
    with pytest.raises(ValueError, match=message):
        DigitsSpec(**values)


def test_bad_requests():
    with pytest.raises(ValueError, match=r"'test'; choose from train, val"):
        make_digits("test", 1)
    with pytest.raises(ValueError, match="at least one image"):
        make_digits("val", 0)
