"""DenseNet of the paper's Tables 2 and 8, as a timm entry: timm's `DenseNet` with the paper's depths, made elastic. The
name of this module must differ from timm's `densenet`, whose registry group it would join otherwise.

The base `densenet201` is timm's own.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseNet
from torch import nn

from elastic_cnn.zoo.config import elastic_builder, pretrained_config

default_cfgs = generate_default_cfgs(
    {"densenet201_elastic": pretrained_config(first_conv="features.conv0", classifier="classifier")}
)


@register_model
def densenet201_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DenseNet201+Elastic (Table 2): depths 10, 20, 40, 30 give the base's parameters and multiply-adds again."""
    arguments = {
        "growth_rate": 32,
        "block_config": (10, 20, 40, 30),
        "feature_cfg": {"flatten_sequential": True},
        **kwargs,
    }
    return build_model_with_cfg(elastic_builder(DenseNet), "densenet201_elastic", pretrained, **arguments)
