"""DeepLabv3 on a ResNeXt, with or without Elastic (paper, section 4.3; Chen et al., arXiv 1706.05587)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

RATES = (6, 12, 18)  # of atrous spatial pyramid pooling, beside a 1x1 convolution and image pooling
MULTI_GRID = (1, 2, 4)  # of the last stage's three blocks, times the stage's dilation of 2


class DeepLabV3(nn.Module):
    """Images `(N, in_chans, H, W)` of any height and width -> logits `(N, num_classes, H, W)`.

    backbone: timm's `ResNet` without classifier, at output stride 16, with three blocks in the last stage; their
        dilations become 2, 4 and 8. channels: width of the head.

    Raises `ValueError` where the last stage has another number of blocks.
    """

    def __init__(self, backbone: Any, num_classes: int = 21, channels: int = 256):
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        _set_multi_grid(backbone.layer4)
        self.aspp = ASPP(backbone.num_features, list(RATES), channels)
        del self.aspp.project[3]  # dropout, which the paper's networks do not have
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        for module in self.aspp.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training computes the backbone's inner activations again when they are needed."""
        self.backbone.set_grad_checkpointing(enable)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = self.backbone.forward_features(x)  # (N, C, ceil(H / 16), ceil(W / 16))
        x = self.classifier(self.aspp(x))
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    def released_output(self, images: Tensor) -> Tensor:
        """What the released code returns for the same images: the same logits."""
        return self(images)


def _set_multi_grid(stage: Any) -> None:
    if len(stage) != len(MULTI_GRID):
        raise ValueError(f"the multi-grid {MULTI_GRID} needs three blocks in the last stage, got {len(stage)}")
    for block, grid in zip(stage, MULTI_GRID, strict=True):
        block.conv2.dilation = block.conv2.padding = (2 * grid, 2 * grid)
