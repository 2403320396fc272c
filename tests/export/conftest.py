"""Tiny checkpoints of each task, with norms that have seen something, and photos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_norms import random_norms

from elastic_cnn import create_model, elasticize, save_checkpoint
from elastic_cnn.export import export_checkpoint
from elastic_cnn.export.formats import FORMATS
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

CLASSES = ("bee", "ant", "Käfer")
TINY = {"stem_width": 8, "channels": [16, 16, 32, 32]}
INPUT = InputSpec((48, 64), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), crop_mode="squash")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An elasticized ResNet for three classes."""
    torch.manual_seed(0)
    kwargs = {**TINY, "num_classes": 3}
    network = elasticize(create_model("resnet10t", **kwargs))
    card = NetworkCard("resnet10t", kwargs, classes=CLASSES, input=INPUT)
    return save_checkpoint(tmp_path_factory.mktemp("run") / "best.safetensors", random_norms(network), card)


@pytest.fixture
def convolutions_checkpoint(tmp_path: Path) -> Path:
    """The same ResNet, made elastic one convolution at a time."""
    kwargs = {**TINY, "num_classes": 3}
    network = elasticize(create_model("resnet10t", **kwargs), convolutions=True)
    card = NetworkCard("resnet10t", kwargs, classes=CLASSES, input=INPUT)
    return save_checkpoint(tmp_path / "net.safetensors", random_norms(network), card)


@pytest.fixture(scope="session")
def segmentation_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DLA-Up on an elastic DLA."""
    torch.manual_seed(0)
    kwargs = {
        "num_classes": 3,
        "levels": [1, 1, 1, 1, 1, 1],
        "channels": [8, 8, 16, 16, 32, 32],
        "cardinality": 2,
        "base_width": 32,
    }
    network = create_model("dla60x_elastic_seg", **kwargs)
    card = NetworkCard("dla60x_elastic_seg", kwargs, "segmentation", CLASSES, INPUT)
    return save_checkpoint(tmp_path_factory.mktemp("seg") / "seg.safetensors", random_norms(network), card)


@pytest.fixture(scope="session")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint in every format, {format: file}."""
    folder = tmp_path_factory.mktemp("exported")
    return {name: export_checkpoint(checkpoint, folder / f"net{one.suffix}").path for name, one in FORMATS.items()}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """val/CLASS/ with 12 photos, of which one is broken."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in CLASSES:
        (root / "val" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "val" / name / f"{number}.png")
    (root / "val" / "ant" / "0.png").write_bytes(b"no picture")
    return root
