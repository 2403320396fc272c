"""HEIC photos, where a reader is there (the package pillow-heif): found, trained on, predicted."""

import json

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.cli import main
from elastic_cnn.data.fast_pixels import FastTrainTransform
from elastic_cnn.data.picture_kinds import picture_endings
from elastic_cnn.data.pixels import read_rgb
from elastic_cnn.data.transforms import train_transform

pytest.importorskip("pillow_heif", reason="HEIC is read by the package pillow-heif")
COLOURS = {"red": (200, 40, 40), "green": (40, 180, 60)}
RECIPE = """\
network: resnext_small_elastic
network_kwargs: {channels: [8, 8, 8, 8], layers: [2, 2, 1, 1]}
image_size: 32
epochs: 1
batch_size: 4
optimizer: {lr: 0.01}
"""


def test_a_folder_of_heic_photos_is_trained_on_and_predicted(tmp_path, capsys):
    assert {".heic", ".heif"} <= set(picture_endings())
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.clip(colour + rng.normal(0, 20, (40, 56, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(
                    tmp_path / split / name / f"{number}.{'HEIC' if number else 'heif'}", "HEIF"
                )
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    run = tmp_path / "run"
    words = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path), "-o", str(run), "--workers", "0"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "train: 8 photos in 2 classes (green 4, red 4)" in said.out
    assert "left out" not in said.err
    assert main(["predict", str(run), str(tmp_path / "val" / "red"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4


def test_pixels_come_nearly_without_loss(tmp_path):
    picture = Image.new("RGB", (64, 32), (200, 40, 40))
    picture.paste((40, 180, 60), (0, 0, 32, 32))
    path = tmp_path / "a.heic"
    picture.save(path, "HEIF", quality=95)
    assert np.abs(np.asarray(read_rgb(path), float) - np.asarray(picture, float)).mean() < 3
    fast = train_transform(16, (0.5,) * 3, (0.5,) * 3, loading="fast")
    assert isinstance(fast, FastTrainTransform)
    assert fast.read(path).shape == (3, 16, 16)
