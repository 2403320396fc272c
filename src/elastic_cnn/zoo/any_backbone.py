"""Segmentation networks with a timm backbone of choice, elastic ones of the zoo among them, by name for `create_model`.

`deeplabv3` is the paper's head; `smp_unet`, `smp_fpn`, ... are decoders of segmentation-models-pytorch (extra `seg`):

    create_model("smp_fpn", backbone="resnext50_elastic", num_classes=11)
    elasticize(create_model("deeplabv3", backbone="resnet50", num_classes=11))
"""

import contextlib
from collections.abc import Callable
from typing import Any

import timm
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional

from elastic_cnn.extras import require
from elastic_cnn.zoo.deeplab import DeepLabV3
from elastic_cnn.zoo.factory import register_segmentation

DECODERS = ("unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet")
STRIDE = 32
# smp's constructors swallow unknown arguments, so that only these are passed on
ARGUMENTS = (
    *("encoder_depth", "encoder_output_stride", "decoder_channels", "decoder_atrous_rates", "decoder_aspp_dropout"),
    *("decoder_pyramid_channels", "decoder_segmentation_channels", "decoder_attention_type"),
)


@register_segmentation
def deeplabv3(num_classes: int = 21, backbone: str = "resnet50", pretrained: bool = False, **kwargs: Any) -> DeepLabV3:
    """DeepLabv3 on any of timm's ResNets (ResNeXt, SE and our elastic ones among them) with three blocks in the last
    stage; other arguments are the backbone's. `ValueError` for another kind of backbone, with the remedy."""
    network: nn.Module | None = None
    with contextlib.suppress(AssertionError, NotImplementedError):  # families without a choice of output stride
        network = timm.create_model(backbone, pretrained=pretrained, num_classes=0, output_stride=16, **kwargs)
    if not isinstance(network, ResNet):
        raise ValueError(f"deeplabv3 takes ResNets, which {backbone!r} is not: take smp_deeplabv3plus, smp_fpn, ...")
    return DeepLabV3(network, num_classes)


class EncoderDecoder(nn.Module):
    """images (N, in_chans, H, W) -> logits (N, num_classes, H, W), any height and width.

    `backbone` is smp's encoder (its timm network is `backbone.model`), `decoder` and `head` follow. Images are padded
    with zeros at the right and bottom to multiples of the stride, and logits cropped.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone: nn.Module = network.get_submodule("encoder")
        self.decoder: nn.Module = network.get_submodule("decoder")
        self.head: nn.Module = network.get_submodule("segmentation_head")

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % STRIDE, 0, -height % STRIDE))
        logits = self.head(self.decoder(self.backbone(padded)))
        return logits[..., :height, :width]


def _builder(decoder: str) -> Callable[..., nn.Module]:
    def build(
        num_classes: int = 21, backbone: str = "resnet50", pretrained: bool = False, in_chans: int = 3, **kwargs: Any
    ) -> nn.Module:
        smp = require("segmentation_models_pytorch", "seg")
        if unknown := sorted(set(kwargs) - set(ARGUMENTS)):
            raise TypeError(
                f"smp_{decoder} takes backbone, pretrained, in_chans and some of {', '.join(ARGUMENTS)}, not {unknown}"
            )
        try:
            network = smp.create_model(
                decoder,
                encoder_name=f"tu-{backbone}",
                encoder_weights="imagenet" if pretrained else None,
                in_channels=in_chans,
                classes=num_classes,
                **kwargs,
            )
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"smp_{decoder} cannot be built on {backbone!r}: {error}") from error
        return EncoderDecoder(network)

    build.__name__ = f"smp_{decoder}"
    build.__doc__ = f"smp's `{decoder}` on the timm network `backbone`; other arguments are smp's."
    return build


for _decoder in DECODERS:
    register_segmentation(_builder(_decoder))
