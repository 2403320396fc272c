"""timm's pretrained configuration of our networks: no weights to download yet, the paper's test crop."""

from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

# How this package makes its own networks elastic: the rules' blocks alone, as in the paper; tests compare them.
AS_PUBLISHED: dict[str, Any] = {"convolutions": False, "verify": False, "inplace": True}


def pretrained_config(**changes: Any) -> dict[str, Any]:
    """Resize to 256, centre crop of 224 (224 / 0.875), bilinear, ImageNet's mean and deviation."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
        **changes,
    }
