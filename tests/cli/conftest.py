"""A tiny data set and recipe for the commands that train."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = """\
network: resnet10t
network_kwargs: {stem_width: 8, channels: [8, 8, 16, 16]}
image_size: 32
epochs: 1
batch_size: 4
optimizer: {lr: 0.05}
schedule: {name: constant}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and photos/{train,val}/{dark,light}/."""
    root, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    (root / "tiny.yaml").write_text(RECIPE)
    for split, count in (("train", 6), ("val", 2)):
        for level, name in enumerate(("dark", "light")):
            folder = root / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(120 * level, 120 * level + 100, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root
