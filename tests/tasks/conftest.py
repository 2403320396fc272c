"""A folder of tiny photos that can be learnt, and a tiny recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.tasks.training import train

RECIPE = """\
network: resnet10t
network_kwargs: {stem_width: 8, channels: [8, 8, 16, 16], drop_rate: 0.1}
image_size: 32
epochs: 2
batch_size: 8
optimizer: {lr: 0.05}
schedule: {name: cosine, warmup_epochs: 1}
ema: 0.9
log_every: 2
options: {mixup: 0.2, label_smoothing: 0.1, color_jitter: 0.2}
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 photos to train on and 9 to test on, in 3 classes; the class is the brightest channel."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 3)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (root / "train" / "red" / "10.png").unlink()
    return root


@pytest.fixture(scope="session")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe as a file: 4 steps an epoch."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def recipe(recipe_path: Path) -> Recipe:
    return load_recipe(recipe_path)


@pytest.fixture(scope="session")
def whole(recipe_path: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A run of the tiny recipe that nothing interrupted: its folder and summary."""
    torch.manual_seed(123)  # must not matter
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train(load_recipe(recipe_path), photos, out, Settings(accelerator="cpu", checkpoint_every=1))
