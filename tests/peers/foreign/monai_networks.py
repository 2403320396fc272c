"""MONAI: medical networks in two dimensions, mostly of one channel."""

from collections.abc import Iterator

from foreign.checks import Case
from monai.networks import nets

ONE, ODD, FLAT = (1, 64, 64), (1, 80, 96), {"spatial_dims": 2}
UNET = {**FLAT, "in_channels": 1, "out_channels": 2, "channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
DYN = {**FLAT, "in_channels": 1, "out_channels": 2, "kernel_size": [3] * 4, "strides": [1, 2, 2, 2]}


def cases() -> Iterator[Case]:
    two = {**FLAT, "in_channels": 1, "out_channels": 2}
    makers = {
        "UNet": lambda: nets.UNet(**UNET),
        "UNet, residual units": lambda: nets.UNet(**UNET, num_res_units=2, norm="batch"),
        "BasicUNet": lambda: nets.BasicUNet(**two),
        "BasicUNetPlusPlus": lambda: nets.BasicUNetPlusPlus(**two),
        "DynUNet": lambda: nets.DynUNet(**DYN, upsample_kernel_size=[2] * 3),
        "DynUNet, residual, deep supervision": lambda: nets.DynUNet(
            **DYN, upsample_kernel_size=[2] * 3, res_block=True, deep_supervision=True
        ),
        "SegResNet": lambda: nets.SegResNet(**two),
        "SegResNetDS": lambda: nets.SegResNetDS(**two),
        "AttentionUnet": lambda: nets.AttentionUnet(**two, channels=(16, 32, 64), strides=(2, 2)),
        "VNet": lambda: nets.VNet(**two),
        "HighResNet": lambda: nets.HighResNet(**two),
        "MedNeXtS": lambda: nets.MedNeXtS(**two),
        "UNETR": lambda: nets.UNETR(1, 2, 64, spatial_dims=2, hidden_size=96, mlp_dim=96, num_heads=4),
        "SwinUNETR": lambda: nets.SwinUNETR(**two, feature_size=12),
        "DenseNet121": lambda: nets.DenseNet121(**{**two, "out_channels": 4}),
        "EfficientNetBN": lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1, **FLAT),
        "ResNet-18": lambda: nets.resnet18(**FLAT, n_input_channels=1, num_classes=4),
        "SEResNet50": lambda: nets.SEResNet50(**FLAT, in_channels=1, num_classes=4),
        "FlexibleUNet, EfficientNet": lambda: nets.FlexibleUNet(1, 2, "efficientnet-b0", **FLAT),
        "AutoEncoder": lambda: nets.AutoEncoder(2, 1, 1, (8, 16, 32), (2, 2, 2)),
        "Classifier": lambda: nets.Classifier(ONE, 3, (8, 16, 32), (1, 2, 2)),
        "UNet in three dimensions": lambda: nets.UNet(3, 1, 2, (8, 16), (2,)),
    }
    one_size = ("UNETR", "AutoEncoder", "Classifier")
    odd = {"SwinUNETR": (1, 96, 128), "MedNeXtS": (1, 96, 128), "FlexibleUNet, EfficientNet": (1, 96, 128)}
    for name, make in makers.items():
        if "three" in name:
            yield Case(name, make, (1, 16, 16, 16), None)
        else:
            yield Case(name, make, ONE, None if name in one_size else odd.get(name, ODD))
    color = {**UNET, "in_channels": 3}
    yield Case("UNet, three channels", lambda: nets.UNet(**color, num_res_units=2), (3, 64, 64), (3, 80, 96))
    yield Case(
        "FlexibleUNet, ResNet-18", lambda: nets.FlexibleUNet(3, 2, "resnet18", **FLAT), (3, 64, 64), (3, 96, 128)
    )
    yield Case("TorchVisionFCModel", lambda: nets.TorchVisionFCModel("resnet18", num_classes=3), (3, 96, 96), None)
