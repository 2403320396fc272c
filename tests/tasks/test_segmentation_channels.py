"""Segmentation of photos of other channels than three: trained, tested, shown, segmented, or refused."""

import numpy as np
import pytest
from PIL import Image
from tiny_fpn import TINY_FPN

from elastic_cnn.analysis.segment_files import segment_files
from elastic_cnn.data.mask_transforms import train_transform
from elastic_cnn.data.masks import Labels, MaskSamples, folder_pairs
from elastic_cnn.data.picture_kinds import Reading
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import evaluate, train
from elastic_cnn.zoo.checkpoint import load_checkpoint

QUIET = Settings(accelerator="cpu", progress=False)


def write(root, channels: int, kind: str, top: int = 200) -> None:
    """Photos 40 x 48 whose last channel alone shows the square that the mask says."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for name in (split, f"{split}annot"):
            (root / name).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros((40, 48), np.uint8)
            row, column = rng.integers(2, 20, 2)
            mask[row : row + 16, column : column + 16] = 1
            photo = rng.integers(0, top // 4, (40, 48, channels))
            photo[..., -1] = top // 4 + mask.astype(int) * (top // 2)
            Image.fromarray(mask).save(root / f"{split}annot" / f"{number}.png")
            if kind == "npy":
                np.save(root / split / f"{number}.npy", photo.astype(np.uint16 if top > 255 else np.uint8))
            else:
                Image.fromarray(photo.astype(np.uint8).squeeze()).save(root / split / f"{number}.png")


@pytest.mark.parametrize(("channels", "kind", "top"), [(1, "png", 200), (4, "png", 200), (5, "npy", 4000)])
def test_they_are_trained_tested_and_segmented(channels, kind, top, tmp_path):
    write(tmp_path, channels, kind, top)
    options = {"classes": ["ground", "square"], "test_size": "own", "sheet": 2, "rotation": 10}
    if top > 255:
        options["max_value"] = 4095
    recipe = Recipe(
        task="segmentation", network="smp_fpn", network_kwargs={**TINY_FPN, "in_chans": channels}, image_size=32,
        epochs=1, batch_size=3, val_batch_size=2, options=options,
    )  # fmt: skip
    run = tmp_path / "run"
    train(recipe, tmp_path, run, QUIET)
    _, card = load_checkpoint(run)
    assert len(card.input.mean) == channels
    results = evaluate(run, tmp_path, options=TestOptions(batch_size=1), settings=QUIET)
    assert results["images"] == 2
    assert results["miou"] == pytest.approx(card.info["results"]["miou"], abs=2e-3)
    with Image.open(run / "pictures" / "masks_epoch_001.png") as sheet:
        square = np.asarray(sheet)[:40, :48]
    assert square.std() > 5  # the photo is on the sheet, not a blank
    photo = tmp_path / "val" / f"0.{kind}"
    [whole] = segment_files(run, [photo], tmp_path / "whole")
    [tiled] = segment_files(run, [photo], tmp_path / "tiled", max_bytes=2**30)
    with Image.open(whole.mask) as a, Image.open(tiled.mask) as b:
        assert a.size == (48, 40)
        assert np.array_equal(np.asarray(a), np.asarray(b))
    grey = tmp_path / "rgb.png"
    Image.new("RGB", (48, 40)).save(grey)
    [told] = segment_files(run, [grey], tmp_path / "no")
    assert (channels == 1) != (f"the network takes {channels}" in str(told))


@pytest.mark.parametrize("channels", [1, 4])
def test_bands_go_through_training_views_unchanged_in_scale(channels, tmp_path):
    """Floats in 0..1 keep their values under scaling, cropping and padding; the border is the mean and void."""
    write(tmp_path, channels, "npy", 200)
    two = Labels(("ground", "square"))
    pairs = folder_pairs(tmp_path, "train")
    known = {"mean": (0.25,) * channels, "std": (1.0,) * channels, "reading": Reading(channels)}
    samples = MaskSamples(pairs, two, size=(64, 64), scale=(0.5, 0.5), **known)
    for index in range(len(samples)):
        sample = samples[index]
        image = sample["image"] + 0.25
        void = sample["target"] == 255
        assert image.shape == (channels, 64, 64)
        assert void.sum() == 64 * 64 - 20 * 24
        assert (image[:, void] - 0.25).abs().max() < 1e-6
        assert image[-1][sample["target"] == 1].median() == pytest.approx(150 / 255, abs=0.02)
        assert image[-1][sample["target"] == 0].median() == pytest.approx(50 / 255, abs=0.02)
    one = train_transform((1, 1), (0.001, 0.001), known["mean"])
    photo, mask = samples.read(0)
    from torchvision import tv_tensors

    pixel, _ = one(tv_tensors.Image(photo), tv_tensors.Mask(mask))
    assert pixel.flatten()[-1] == pytest.approx(float(photo[-1].mean()), abs=1e-5)


def test_arrays_of_other_sizes_are_refused_before_they_meet_in_a_batch(tmp_path):
    write(tmp_path, 5, "npy")
    np.save(tmp_path / "val" / "1.npy", np.zeros((30, 30, 5), np.uint8))
    known = {"mean": (0.5,) * 5, "std": (1.0,) * 5, "reading": Reading(5)}
    samples = MaskSamples(folder_pairs(tmp_path, "val"), Labels(("ground", "square")), size=None, **known)
    with pytest.raises(ValueError, match=r"0\.npy: 48 x 40, .*1\.npy: 30 x 30.*val_batch_size=1"):
        samples.check_batchable(2)
    with pytest.raises(ValueError, match=r"the mask .*1\.png is 48 x 40, its photo .*1\.npy 30 x 30: they must"):
        samples[1]
