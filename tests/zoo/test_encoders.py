"""Our networks inside others: encoders of segmentation_models_pytorch, backbones of torchvision's detectors."""

from typing import Any

import pytest
import timm
import torch
from citizens import FAMILIES, SMALL, build, images
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork

smp = pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("decoder", ["Unet", "FPN", "DeepLabV3Plus"])
def test_encoder_of_segmentation_models(decoder: str, name: str) -> None:
    """By smp's name for timm's networks, `tu-NAME`; every weight of the encoder gets a gradient."""
    channels = 4 if decoder == "FPN" else 3
    options: dict[str, Any] = {"encoder_weights": None, "classes": 3, "in_channels": channels, **SMALL[name]}
    if decoder == "DeepLabV3Plus" and name != "resnext50_elastic":  # neither DenseNet nor DLA is dilated in timm
        options["encoder_output_stride"] = 32
        with pytest.raises(ValueError, match="output stride"):
            smp.DeepLabV3Plus(f"tu-{name}", **options)
        return
    network = getattr(smp, decoder)(f"tu-{name}", **options)
    masks = network(images(2, channels, 64, 96))
    assert masks.shape == (2, 3, 64, 96)
    masks.pow(2).mean().backward()
    gradients = {key: parameter.grad for key, parameter in network.encoder.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


class PyramidBackbone(nn.Module):
    """timm's features of strides 4 to 32 as the named maps that torchvision's detectors take."""

    out_channels = 16

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = timm.create_model(name, features_only=True, **SMALL[name])
        channels = self.body.feature_info.channels()[-4:]
        self.pyramid = FeaturePyramidNetwork(channels, self.out_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)[-4:]
        return self.pyramid({str(i): level for i, level in enumerate(maps)})


def detector(backbone: nn.Module, levels: int) -> FasterRCNN:
    anchors = AnchorGenerator(((16,),) * levels, ((0.5, 1.0, 2.0),) * levels)
    sizes = {"min_size": 65, "max_size": 97, "rpn_post_nms_top_n_train": 20, "box_batch_size_per_image": 16}
    return FasterRCNN(backbone, num_classes=3, rpn_anchor_generator=anchors, **sizes)


def detects(network: FasterRCNN) -> None:
    """One step of training, in which every weight of the backbone gets a gradient, and one of detection."""
    photos = [images(1, 3, 65, 80)[0], images(1, 3, 70, 65)[0]]
    box = torch.tensor([[5.0, 6.0, 40.0, 50.0]])
    losses = network(photos, [{"boxes": box, "labels": torch.tensor([label])} for label in (1, 2)])
    sum(losses.values()).backward()
    missing = [key for key, parameter in network.backbone.named_parameters() if parameter.grad is None]
    assert missing == []
    found = network.eval()(photos)
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}] * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_backbone_of_a_detector(name: str) -> None:
    detects(detector(PyramidBackbone(name), 4))


def test_backbone_by_torchvisions_own_wrapper() -> None:
    """torchvision takes the stages out of a classification network by their names."""
    network = build("resnext50_elastic", num_classes=0).train()
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    channels = [info["num_chs"] for info in network.feature_info[1:]]
    detects(detector(BackboneWithFPN(network, layers, channels, 16), 5))  # the fifth level is pooled from the fourth
