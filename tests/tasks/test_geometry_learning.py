"""What only the right geometry can learn: left from right, and what stands at an end of a wide photo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from elastic_cnn.tasks.recipe import load_recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import train

RECIPE = """\
network: resnet10t
network_kwargs: {stem_width: 8, channels: [8, 16, 16, 32]}
image_size: 32
epochs: 2
batch_size: 16
optimizer: {name: adamw, lr: 0.004}
options: {min_scale: 0.8, crop_pct: 1.0}
"""


def arrow(rng: np.random.Generator, name: str) -> Image.Image:
    picture = Image.new("RGB", (40, 40), tuple(rng.integers(120, 200, 3).tolist()))
    middle, half = int(rng.integers(16, 24)), int(rng.integers(8, 13))
    shape = [(20 - half, middle), (20 + half, middle - half), (20 + half, middle + half)]
    ImageDraw.Draw(picture).polygon(shape, fill=(20, 20, 20))
    return picture if name == "left" else ImageOps.mirror(picture)


def wide(rng: np.random.Generator, name: str) -> Image.Image:
    picture = Image.fromarray(rng.integers(100, 150, (32, 128, 3), dtype=np.uint8))
    left = 2 if rng.random() < 0.5 else 106
    colour = {"red": (220, 30, 30), "blue": (30, 30, 220)}[name]
    ImageDraw.Draw(picture).rectangle((left, 6, left + 20, 26), fill=colour)
    return picture


def learnt(root: Path, draw, names: tuple[str, str], *overrides: str) -> float:
    """top1 of a network trained on pictures of two kinds."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 128), ("val", 12)):
        for name in names:
            (root / "data" / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                draw(rng, name).save(root / "data" / split / name / f"{number}.png")
    (root / "tiny.yaml").write_text(RECIPE)
    summary = train(
        load_recipe(root / "tiny.yaml", overrides),
        root / "data",
        root / "run",
        Settings(accelerator="cpu", progress=False),
    )
    return summary.last_results["top1"]


@pytest.mark.parametrize(("flip", "low", "high"), [("options.hflip=0", 0.95, 1.0), ("options.hflip=0.5", 0.0, 0.75)])
def test_arrows_to_the_left_and_to_the_right(flip, low, high, tmp_path):
    """With mirrored pictures under the same names there is nothing to learn."""
    assert low <= learnt(tmp_path, arrow, ("left", "right"), flip) <= high


@pytest.mark.parametrize(
    ("overrides", "low", "high"),
    [
        (("options.crop_mode=squash",), 0.95, 1.0),
        (("options.crop_mode=border",), 0.95, 1.0),
        (("image_size=16x64",), 0.95, 1.0),
        (("options.crop_mode=center",), 0.0, 0.75),
    ],
)
def test_an_object_at_an_end_of_a_wide_photo(overrides, low, high, tmp_path):
    assert low <= learnt(tmp_path, wide, ("red", "blue"), *overrides) <= high
