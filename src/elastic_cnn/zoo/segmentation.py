"""The paper's segmentation networks (Table 5) by name, for `create_model(name, num_classes=21)`.

Further arguments are the backbone's (`layers`, `in_chans`, `drop_path_rate`, ...; of an elastic one also `spec`).
"""

from typing import Any

import timm
from timm.models.dla import DlaBottleneck

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery import elasticize
from elastic_cnn.zoo.config import AS_PUBLISHED
from elastic_cnn.zoo.deeplab import DeepLabV3
from elastic_cnn.zoo.dla_up import DLASegmentation
from elastic_cnn.zoo.elastic_dla import CHANNELS, AnySizeDLA
from elastic_cnn.zoo.factory import register_segmentation


def _deeplab(backbone: str, num_classes: int, kwargs: dict[str, Any]) -> DeepLabV3:
    return DeepLabV3(timm.create_model(backbone, num_classes=0, output_stride=16, **kwargs), num_classes)


def _dla_backbone(kwargs: dict[str, Any]) -> AnySizeDLA:
    arguments = {"levels": (1, 1, 1, 2, 3, 1), "channels": CHANNELS, "cardinality": 32, "base_width": 4}
    return AnySizeDLA(block=DlaBottleneck, num_classes=0, **{**arguments, **kwargs})


@register_segmentation
def deeplabv3_resnext50(num_classes: int = 21, **kwargs: Any) -> DeepLabV3:
    """DeepLabv3 on ResNeXt50."""
    return _deeplab("resnext50", num_classes, kwargs)


@register_segmentation
def deeplabv3_resnext50_elastic(num_classes: int = 21, **kwargs: Any) -> DeepLabV3:
    """DeepLabv3 on ResNeXt50+Elastic."""
    return _deeplab("resnext50_elastic", num_classes, kwargs)


@register_segmentation
def deeplabv3_resnext101(num_classes: int = 21, **kwargs: Any) -> DeepLabV3:
    """DeepLabv3 on ResNeXt101."""
    return _deeplab("resnext101", num_classes, kwargs)


@register_segmentation
def deeplabv3_resnext101_elastic(num_classes: int = 21, **kwargs: Any) -> DeepLabV3:
    """DeepLabv3 on ResNeXt101+Elastic."""
    return _deeplab("resnext101_elastic", num_classes, kwargs)


@register_segmentation
def dla60x_seg(num_classes: int = 21, **kwargs: Any) -> DLASegmentation:
    """DLA-Up on DLA-X60."""
    return DLASegmentation(_dla_backbone(kwargs), num_classes)


@register_segmentation
def dla60x_elastic_seg(num_classes: int = 21, spec: ElasticSpec | None = None, **kwargs: Any) -> DLASegmentation:
    """DLA-Up on DLA-X60+Elastic."""
    return DLASegmentation(elasticize(_dla_backbone(kwargs), spec, **AS_PUBLISHED), num_classes)
