"""How timm's entries of our networks are built, and their pretrained configuration: no weights to download yet, the
paper's test crop."""

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery import elasticize

# How this package makes its own networks elastic: the rules' blocks alone, as in the paper; tests compare them.
AS_PUBLISHED: dict[str, Any] = {"convolutions": False, "verify": False, "inplace": True}


def plain_builder(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """timm sets attributes on what it builds with, so a function in place of the class."""

    def build(**kwargs: Any) -> nn.Module:
        return kind(**kwargs)

    return build


def elastic_builder(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The same, made elastic by `spec`."""

    def build(spec: ElasticSpec | dict[Any, Any] | None = None, **kwargs: Any) -> nn.Module:
        return elasticize(kind(**kwargs), spec, **AS_PUBLISHED)

    return build


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
