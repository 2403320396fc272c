"""DenseNet201+Elastic: the paper's figures, any size, and training of every weight."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elastic_cnn

sys.path.insert(0, str(Path(__file__).parent))
from any_size import check_export, check_training
from cost import count

SIDES = st.integers(33, 130)


@pytest.fixture(scope="module")
def small():
    return elastic_cnn.create_model("densenet201_elastic", growth_rate=8, block_config=(2, 3, 2, 2), num_classes=5)


@pytest.mark.parametrize(
    ("name", "params", "macs"), [("densenet201", 20.0, 4.291), ("densenet201_elastic", 19.5, 4.266)]
)
def test_cost_is_the_paper_s(name, params, macs):
    measured = count(name)
    assert abs(measured[0] - params) <= 0.05
    assert abs(measured[1] - macs) <= 0.0005


def test_three_dense_blocks_are_elastic():
    with torch.device("meta"):
        report = elastic_cnn.create_model("densenet201_elastic").elastic_report
    assert len(report.converted) == 10 + 20 + 40
    assert len(report.left) == 30


@given(height=SIDES, width=SIDES)
@settings(max_examples=15, deadline=None)
def test_any_size(small, height, width):
    with torch.no_grad():
        logits = small.eval()(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_every_weight_trains_and_checkpointing_changes_nothing(small):
    check_training(small, torch.randn(2, 3, 97, 65))


def test_export():
    network = elastic_cnn.create_model("densenet201_elastic", growth_rate=8, block_config=(1, 1, 1, 1), num_classes=5)
    check_export(network, torch.randn(1, 3, 47, 65))


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="depth"):
        elastic_cnn.create_model("densenet201_elastic", depth=3)
