"""`create_model`: every network by name, timm's, ours in timm's registry, and the segmentation networks."""

from collections.abc import Callable
from typing import Any

import timm
from torch import nn

from elastic_cnn.hints import did_you_mean
from elastic_cnn.zoo.elastic_dla import accept_any_size

SEGMENTATION_NETWORKS: dict[str, Callable[..., nn.Module]] = {}


def register_segmentation(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Decorator: make `build(num_classes=21, **kwargs)` known to `create_model` under its own name."""
    SEGMENTATION_NETWORKS[build.__name__] = build
    return build


def is_known(name: str) -> bool:
    """Whether `create_model` knows the name."""
    return name in SEGMENTATION_NETWORKS or timm.is_model(name)


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """The network of that name, with random weights unless `pretrained=True` (timm's own networks) asks for others.

    name: a segmentation network of this package (`deeplabv3_resnext50_elastic`, ...; images `(N, 3, H, W)` -> logits
        `(N, num_classes, H, W)`), one of our classification networks (`resnext50_elastic`, ...) or any timm network
        (-> logits `(N, num_classes)`), timm's `hf-hub:` and `local-dir:` names included.
    kwargs: the network's own (`num_classes`, `drop_path_rate`, ...); unknown ones raise `TypeError`.

    Raises `ValueError` for an unknown name, with the nearest ones.
    """
    if name in SEGMENTATION_NETWORKS:
        return SEGMENTATION_NETWORKS[name](**kwargs)
    if ":" not in name and not timm.is_model(name):
        hint = did_you_mean(name, [*SEGMENTATION_NETWORKS, *timm.list_models()], most=3)
        raise ValueError(f"unknown network {name!r}{hint}")
    return accept_any_size(timm.create_model(name, **kwargs))
