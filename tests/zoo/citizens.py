"""Small networks for the tests of citizenship: our entry points with fewer blocks and channels, at 64 pixels.

The tests ask of them what timm's own networks can do, and compare with the same network used plainly.
"""

from typing import Any

import timm
import torch
from random_norms import random_norms
from torch import Tensor, nn

import elastic_cnn  # noqa: F401  (registers our networks)

RESNEXT = {"layers": (2, 2, 2, 1), "channels": (16, 32, 64, 128), "cardinality": 4, "base_width": 16, "stem_width": 16}
DLA = {"channels": (8, 8, 16, 32, 64, 64), "base_width": 16}
SMALL: dict[str, dict[str, Any]] = {
    "resnext50_elastic": RESNEXT,
    "se_resnext50_elastic": RESNEXT,
    "densenet201_elastic": {"block_config": (2, 3, 3, 2), "growth_rate": 8},
    "dla60x_elastic": {"levels": (1, 1, 1, 2, 1, 1), "cardinality": 4, **DLA},
    "dla102x_elastic": {"levels": (1, 1, 2, 2, 1, 1), "cardinality": 5, **DLA},  # its roots have shortcuts
}
NAMES = list(SMALL)
FAMILIES = ["resnext50_elastic", "densenet201_elastic", "dla60x_elastic"]  # one of each
CLASSES = 7


def build(name: str, **kwargs: Any) -> Any:
    """The small network of that name in eval mode, with random norms."""
    return random_norms(timm.create_model(name, **{"num_classes": CLASSES, **SMALL[name], **kwargs}))


def images(*size: int) -> Tensor:
    """Random images `size` = (N, 3, H, W), the same every time."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(2))


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """{name: gradient} of all parameters; one that has none fails the test."""
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    missing = [name for name, gradient in found.items() if gradient is None]
    assert not missing, f"no gradient for {missing}"
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}
