"""The paper's families in small form, for inputs of 64 to 128 pixels and small machines (ours, not in the paper).

`resnext_small` and `resnext_small_elastic` stand beside the large ones in `elastic_resnext.py`; here are ResNeXt's
sElastic and the DenseNet and DLA pairs. `spec` may name a spec a stage: `{1: {...}, 2: {...}}`, numbers also as text.
"""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseNet
from timm.models.dla import DlaBottleneck
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from elastic_cnn.zoo.config import elastic_builder, plain_builder, pretrained_config
from elastic_cnn.zoo.elastic_dla import AnySizeDLA
from elastic_cnn.zoo.elastic_resnext import SMALL

DENSENET = {"growth_rate": 16, "feature_cfg": {"flatten_sequential": True}}
DLA = {
    "channels": (16, 32, 64, 64, 128, 256),
    "block": DlaBottleneck,
    "cardinality": 8,
    "base_width": 8,
    "levels": (1, 1, 1, 2, 3, 1),
    "feature_cfg": {"out_indices": (1, 2, 3, 4, 5)},
}
_SIZE = {"input_size": (3, 128, 128), "pool_size": (4, 4)}
default_cfgs = generate_default_cfgs(
    {
        "resnext_small_selastic": pretrained_config(**_SIZE),
        "densenet_small": pretrained_config(first_conv="features.conv0", classifier="classifier", **_SIZE),
        "densenet_small_selastic": pretrained_config(first_conv="features.conv0", classifier="classifier", **_SIZE),
        "densenet_small_elastic": pretrained_config(first_conv="features.conv0", classifier="classifier", **_SIZE),
        "dla_small": pretrained_config(first_conv="base_layer.0", **_SIZE),
        "dla_small_elastic": pretrained_config(first_conv="base_layer.0", **_SIZE),
    }
)


def _make(
    variant: str, pretrained: bool, build: Callable[..., nn.Module], given: dict[str, Any], kwargs: dict[str, Any]
) -> nn.Module:
    return build_model_with_cfg(build, variant, pretrained, **{**given, **kwargs})


@register_model
def resnext_small_selastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` with its blocks made elastic: the base's depths, so fewer multiply-adds."""
    given = {"block": Bottleneck, "layers": (2, 2, 3, 2), **SMALL}
    return _make("resnext_small_selastic", pretrained, elastic_builder(ResNet), given, kwargs)


@register_model
def densenet_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A DenseNet with bottlenecks, growth 16."""
    return _make(
        "densenet_small", pretrained, plain_builder(DenseNet), {**DENSENET, "block_config": (4, 6, 10, 6)}, kwargs
    )


@register_model
def densenet_small_selastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`densenet_small` with its layers made elastic: the base's depths, so fewer multiply-adds."""
    given = {**DENSENET, "block_config": (4, 6, 10, 6)}
    return _make("densenet_small_selastic", pretrained, elastic_builder(DenseNet), given, kwargs)


@register_model
def densenet_small_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The elastic partner of `densenet_small`: parameters and multiply-adds equal within 2%."""
    given = {**DENSENET, "block_config": (6, 8, 7, 5)}
    return _make("densenet_small_elastic", pretrained, elastic_builder(DenseNet), given, kwargs)


@register_model
def dla_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A DLA-X with the levels of DLA-X60."""
    return _make("dla_small", pretrained, plain_builder(AnySizeDLA), DLA, kwargs)


@register_model
def dla_small_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`dla_small` with its blocks made elastic, as the paper does with DLA-X60: fewer multiply-adds."""
    return _make("dla_small_elastic", pretrained, elastic_builder(AnySizeDLA), DLA, kwargs)
