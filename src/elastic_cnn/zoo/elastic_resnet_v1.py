"""ResNet-50 as He et al. published it in 2015 ("v1"), plain and elastic, as timm entries.

Keras and Caffe trained this network; it differs from timm's `resnet50` ("v1.5") in two things: the stride of a stage's
first block sits in its first 1x1 convolution, and the batch norms' eps is 1e-3 (Keras). Tensor names are timm's, so
weights converted from there load by name.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from elastic_cnn.zoo.config import elastic_builder, pretrained_config


def _resnet_v1(**kwargs: Any) -> nn.Module:
    network = ResNet(**kwargs)
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3
    return network


default_cfgs = generate_default_cfgs({"resnet50_v1": pretrained_config(), "resnet50_v1_selastic": pretrained_config()})


@register_model
def resnet50_v1(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with v1's strides and Keras' eps."""
    arguments = {"block": Bottleneck, "layers": (3, 4, 6, 3), **kwargs}
    return build_model_with_cfg(_resnet_v1, "resnet50_v1", pretrained, **arguments)


@register_model
def resnet50_v1_selastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnet50_v1` made elastic at the same depth. For the weights of the plain one, train `resnet50_v1` with the
    recipe's `elastic: true`, which divides them."""
    arguments = {"block": Bottleneck, "layers": (3, 4, 6, 3), **kwargs}
    return build_model_with_cfg(elastic_builder(_resnet_v1), "resnet50_v1_selastic", pretrained, **arguments)
