"""Released tensors in our networks give the released code's own numbers (the reference folder's, computed by that code)."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from elastic_cnn import create_model
from elastic_cnn.zoo.released import recognise, translate

# Float32 sums in another order: the networks agree to about 1e-6 of the largest value.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(shared):
    """`(name) -> (released tensors, arrays of the released code's outputs, images(batch, height, width))`"""
    folder = shared / "reference"
    spec = importlib.util.spec_from_file_location("reference_fill", folder / "reference_fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def load(name):
        return (
            module.fill(json.loads((folder / f"{name}.json").read_text())),
            np.load(folder / f"{name}.npz"),
            module.images,
        )

    return load


def relative_error(value, expected):
    return float(np.abs(value - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", ["resnext50", "resnext50_elastic"])
def test_logits_equal_the_released_code(reference, name):
    released, outputs, images = reference(name)
    recognised = recognise(released)
    network = create_model(recognised.name, **recognised.kwargs).eval()
    network.load_state_dict(translate(released, network).state)
    sizes = [key for key in outputs.files if key.startswith("output_")]
    assert sizes
    for key in sizes:
        height, width = map(int, key.removeprefix("output_").split("x"))
        with torch.no_grad():
            logits = network(images(2, height, width)).numpy()  # (2, 1000)
        assert relative_error(logits, outputs[key]) <= TOLERANCE, key
