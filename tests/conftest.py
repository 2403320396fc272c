"""Fixtures that all tests share."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Continuous integration draws the same cases each time; at a desk they are new ones each time.
hypothesis.settings.register_profile("repeatable", derandomize=True)
if "CI" in os.environ:
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real images beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} beside the checkout: it holds the reference numbers and real images")
    return SHARED


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
