"""segmentation_models_pytorch: every decoder, and many encoders."""

from collections.abc import Iterator

import segmentation_models_pytorch as smp
from foreign.checks import Case

DECODERS = ("Unet", "UnetPlusPlus", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "MAnet", "UPerNet")
ENCODERS = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "vgg11_bn",
    "densenet121",
    "efficientnet-b0",
    "mobilenet_v2",
    "se_resnet50",
    "timm-efficientnet-b0",
    "timm-mobilenetv3_small_100",
    "timm-regnetx_002",
    "timm-res2net50_26w_4s",
    "xception",
    "inceptionv4",
    "dpn68",
    "tu-convnext_atto",
    "tu-resnest14d",
    "tu-hrnet_w18_small",
    "mobileone_s0",
]


def cases() -> Iterator[Case]:
    for decoder in DECODERS:
        yield Case(
            f"{decoder} on resnet18",
            lambda decoder=decoder: getattr(smp, decoder)("resnet18", encoder_weights=None, classes=3),
            (3, 64, 64),
            (3, 96, 128),
        )
    for encoder in ENCODERS:
        yield Case(
            f"Unet on {encoder}",
            lambda encoder=encoder: smp.Unet(encoder, encoder_weights=None, classes=3),
            (3, 64, 64),
            (3, 96, 128),
        )
    yield Case(
        "Unet of four channels",
        lambda: smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=2),
        (4, 64, 64),
        (4, 96, 128),
    )
