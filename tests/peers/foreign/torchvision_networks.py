"""torchvision: classification, segmentation, the backbones of its detectors, optical flow, video."""

from collections.abc import Iterator

import torch
import torchvision
from foreign.checks import Case
from torch import nn
from torchvision.models import detection, feature_extraction, optical_flow, segmentation, video

CLASSIFIERS = [
    "alexnet",
    "vgg11",
    "vgg11_bn",
    "vgg16_bn",
    "squeezenet1_0",
    "squeezenet1_1",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "densenet121",
    "densenet169",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "shufflenet_v2_x1_5",
    "mnasnet0_5",
    "mnasnet1_0",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_v2_s",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "regnet_x_800mf",
    "convnext_tiny",
    "convnext_small",
    "maxvit_t",
    "swin_t",
    "swin_v2_t",
]
SEGMENTERS = ["deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
DETECTORS = [
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
]
ONE_SIZE = {
    "maxvit_t": (3, 224, 224),
    "inception_v3": (3, 128, 128),
    "googlenet": (3, 96, 96),
    "alexnet": (3, 128, 128),
}


class Backbone(nn.Module):
    """The part of a detector that computes maps; the rest turns them into lists of boxes."""

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.backbone = detector.backbone

    def forward(self, x: torch.Tensor):
        return self.backbone(x)


def _classifier(name: str) -> nn.Module:
    options = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}.get(name, {})
    return torchvision.models.get_model(name, weights=None, **options)


def _features() -> nn.Module:
    return feature_extraction.create_feature_extractor(torchvision.models.resnet18(), {"layer2": "a", "layer4": "b"})


def _flow(size: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, int]:
    return torch.randn(1, *size), torch.randn(1, *size), 2


def cases() -> Iterator[Case]:
    for name in CLASSIFIERS:
        size = ONE_SIZE.get(name, (3, 96, 96))
        yield Case(name, lambda name=name: _classifier(name), size, None if name in ONE_SIZE else (3, 97, 131))
    for name in SEGMENTERS:
        make = getattr(segmentation, name)
        yield Case(name, lambda make=make: make(weights=None, weights_backbone=None), (3, 96, 96), (3, 97, 131))
    for name in DETECTORS:
        make = getattr(detection, name)
        yield Case(
            f"{name} (backbone)",
            lambda make=make: Backbone(make(weights=None, weights_backbone=None)),
            (3, 320, 320) if "ssd" in name else (3, 96, 96),
            None if "ssd" in name else (3, 97, 131),
            batch=1,
        )
    yield Case("resnet18 as feature extractor (fx)", _features, (3, 96, 96), (3, 97, 131))
    yield Case(
        "raft_small", lambda: optical_flow.raft_small(weights=None), (3, 128, 128), None, _flow, skip={"export": "slow"}
    )
    yield Case("r3d_18", lambda: video.r3d_18(weights=None), (3, 4, 64, 64), None)
