"""Small photos of three classes and untrained, very narrow networks for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.policy.run import Subject
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint

CLASSES = ("blue", "green", "red")
NARROW = {"num_classes": 3, "channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}
PREPARATION = {"size": (32, 32), "crop_pct": 1.0}


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """`val` of 21 photos, 7 a class, and `sizes.csv` for those of two classes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    lines = ["path,size"]
    for channel, name in enumerate(CLASSES):
        (root / "val" / name).mkdir(parents=True)
        for number in range(7):
            pixels = rng.integers(0, 120, (36, 40, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            path = f"val/{name}/{number}.png"
            Image.fromarray(pixels).save(root / path)
            if name != "red":
                lines.append(f"{path},{8 + number}")
    (root / "sizes.csv").write_text("\n".join(lines) + "\n")
    return root


def save_network(
    path: Path, name: str = "resnext_small_elastic", seed: int = 0, kwargs: dict | None = None, **card
) -> Path:
    """A checkpoint of a narrow, untrained network."""
    torch.manual_seed(seed)
    kwargs = kwargs or NARROW
    network = elastic_cnn.create_model(name, **kwargs)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, std=0.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
    card = {"classes": CLASSES, "input": InputSpec(**PREPARATION), **card}
    return save_checkpoint(path, network, NetworkCard(name, kwargs, **card))


@pytest.fixture
def multilabel(tmp_path) -> Subject:
    """A network for the classes cat and dog."""
    from elastic_cnn.policy.run import load_subject

    card = {"task": "multilabel", "classes": ("cat", "dog"), "kwargs": NARROW | {"num_classes": 2}}
    return load_subject(save_network(tmp_path / "multilabel.safetensors", **card))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return save_network(tmp_path_factory.mktemp("elastic") / "best.safetensors")


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory) -> Path:
    return save_network(tmp_path_factory.mktemp("base") / "best.safetensors", "resnext_small", seed=1)


@pytest.fixture
def subject(checkpoint) -> Subject:
    from elastic_cnn.policy.run import load_subject

    return load_subject(checkpoint)


@pytest.fixture
def base(base_checkpoint) -> Subject:
    from elastic_cnn.policy.run import load_subject

    return load_subject(base_checkpoint)
