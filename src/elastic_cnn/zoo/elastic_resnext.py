"""ResNeXt and SE-ResNeXt of the paper's Tables 2 and 8, as timm entries: timm's `ResNet` with the paper's depths, made
elastic. The name of this module must differ from timm's `resnet`, whose registry group it would join otherwise."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from elastic_cnn.zoo.config import elastic_builder, plain_builder, pretrained_config

SMALL = {"channels": (32, 64, 128, 256), "cardinality": 8, "base_width": 8, "stem_width": 32}


def _build(
    variant: str, pretrained: bool, elastic: bool, arguments: dict[str, Any], kwargs: dict[str, Any]
) -> nn.Module:
    arguments = {"block": Bottleneck, "cardinality": 32, "base_width": 4, **arguments, **kwargs}
    builder = elastic_builder if elastic else plain_builder
    return build_model_with_cfg(builder(ResNet), variant, pretrained, **arguments)


default_cfgs = generate_default_cfgs(
    {
        "resnext50": pretrained_config(),
        "resnext50_selastic": pretrained_config(),
        "resnext50_elastic": pretrained_config(),
        "se_resnext50": pretrained_config(),
        "se_resnext50_elastic": pretrained_config(),
        "resnext101": pretrained_config(),
        "resnext101_elastic": pretrained_config(),
        "resnext50x2_elastic": pretrained_config(),
        "resnext_small": pretrained_config(input_size=(3, 128, 128), pool_size=(4, 4)),
        "resnext_small_elastic": pretrained_config(input_size=(3, 128, 128), pool_size=(4, 4)),
    }
)


@register_model
def resnext50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt50 (32x4d), the base of Table 2; timm's `resnext50_32x4d`."""
    return _build("resnext50", pretrained, False, {"layers": (3, 4, 6, 3)}, kwargs)


@register_model
def resnext50_selastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt50+sElastic (Appendix A): the base's depths, so fewer multiply-adds."""
    return _build("resnext50_selastic", pretrained, True, {"layers": (3, 4, 6, 3)}, kwargs)


@register_model
def resnext50_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt50+Elastic (Table 2): depths 6, 8, 5, 3 give the base's parameters and multiply-adds again."""
    return _build("resnext50_elastic", pretrained, True, {"layers": (6, 8, 5, 3)}, kwargs)


@register_model
def se_resnext50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SE-ResNeXt50, the base of Table 2; timm's `seresnext50_32x4d`."""
    return _build(
        "se_resnext50", pretrained, False, {"layers": (3, 4, 6, 3), "block_args": {"attn_layer": "se"}}, kwargs
    )


@register_model
def se_resnext50_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SE-ResNeXt50+Elastic (Table 2)."""
    arguments = {"layers": (6, 8, 5, 3), "block_args": {"attn_layer": "se"}}
    return _build("se_resnext50_elastic", pretrained, True, arguments, kwargs)


@register_model
def resnext101(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt101 (32x4d), the base of Table 2; timm's `resnext101_32x4d`."""
    return _build("resnext101", pretrained, False, {"layers": (3, 4, 23, 3)}, kwargs)


@register_model
def resnext101_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt101+Elastic (Table 2)."""
    return _build("resnext101_elastic", pretrained, True, {"layers": (12, 14, 20, 3)}, kwargs)


@register_model
def resnext50x2_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNeXt50x2+Elastic (64x4d, Table 8)."""
    return _build("resnext50x2_elastic", pretrained, True, {"layers": (6, 8, 5, 3), "cardinality": 64}, kwargs)


@register_model
def resnext_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A ResNeXt for inputs of 64 to 128 pixels and small machines (ours, not in the paper)."""
    return _build("resnext_small", pretrained, False, {"layers": (2, 2, 3, 2), **SMALL}, kwargs)


@register_model
def resnext_small_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The elastic partner of `resnext_small`: parameters and multiply-adds equal within 2%."""
    return _build("resnext_small_elastic", pretrained, True, {"layers": (3, 5, 2, 2), **SMALL}, kwargs)
