"""Rivals of `resnext_small`'s elastic forms, with its stem, stages and budget: other ways to look at several scales.

    resnext_small_octave    octave convolution (Chen et al., ICCV 2019), written here from the paper's formulas
    resnext_small_res2net   Res2Net's blocks (Gao et al., TPAMI 2021), timm's
    resnext_small_sk        selective kernels (Li et al., CVPR 2019), timm's
    resnext_small_dilated   branches of different dilation: the dilated filter pyramid of the Elastic paper's Table 1
    resnext_small_pooled    the base, where strided blocks take means of 2 x 2 first, as octave convolution's do;
                            resnext_small_elastic_pooled: the same of its elastic partner

All take `layers`, `channels`, `cardinality`, `base_width` and `stem_width` as `resnext_small` does. They are for
comparisons at small size (`studies/rivals.yaml`); nobody published them in this form.
"""

from collections.abc import Callable
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.res2net import Bottle2neck
from timm.models.resnet import Bottleneck, ResNet
from timm.models.sknet import SelectiveKernelBottleneck
from torch import Tensor, cat, nn

from elastic_cnn.surgery import elasticize
from elastic_cnn.zoo.config import AS_PUBLISHED, pretrained_config
from elastic_cnn.zoo.elastic_resnext import SMALL
from elastic_cnn.zoo.octave import octave_resnet, pool_strides

SCALES = 4  # of Res2Net, the paper's choice
SELECTION = {"rd_ratio": 1 / 16, "rd_divisor": 8, "split_input": False}  # at least 8 channels; timm's ResNeXt-50: 32
NAMES = (
    "resnext_small_octave", "resnext_small_res2net", "resnext_small_sk", "resnext_small_dilated",
    "resnext_small_pooled", "resnext_small_elastic_pooled",
)  # fmt: skip
default_cfgs = generate_default_cfgs(
    {name: pretrained_config(input_size=(3, 128, 128), pool_size=(4, 4)) for name in NAMES}
)


class DilatedBranches(nn.Module):
    """A grouped 3x3 convolution whose first half of groups has dilation 1 and whose second has dilation 2.

    Parameters and multiply-adds are the grouped convolution's (Table 1: the dilated filter pyramid).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups % 2:
            raise ValueError(f"dilated branches halve the groups: an even number of them, not {conv.groups}")
        half = conv.in_channels // 2
        options: dict[str, Any] = {"stride": conv.stride, "groups": conv.groups // 2, "bias": False}
        branches = [nn.Conv2d(half, half, 3, padding=rate, dilation=rate, **options) for rate in (1, 2)]
        for branch in branches:
            nn.init.kaiming_normal_(branch.weight, mode="fan_out", nonlinearity="relu")  # as timm does
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return cat([branch(part) for branch, part in zip(self.branches, x.chunk(2, 1), strict=True)], 1)


def _dilated_resnet(**kwargs: Any) -> nn.Module:
    network = ResNet(**kwargs)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv2 = DilatedBranches(block.conv2)  # type: ignore[assignment]
    return network


def _res2net(cardinality: int, **kwargs: Any) -> nn.Module:
    if cardinality % SCALES:
        raise ValueError(
            f"Res2Net divides the groups over {SCALES} scales: cardinality={cardinality} cannot be divided"
        )
    block: Any = Bottle2neck
    return ResNet(block=block, cardinality=cardinality // SCALES, block_args={"scale": SCALES}, **kwargs)


def _selective(**kwargs: Any) -> nn.Module:
    block: Any = SelectiveKernelBottleneck
    return ResNet(block=block, block_args={"sk_kwargs": SELECTION}, **kwargs)


def _pooled_resnet(**kwargs: Any) -> nn.Module:
    return pool_strides(ResNet(**kwargs))


def _pooled_elastic_resnet(**kwargs: Any) -> nn.Module:
    return pool_strides(elasticize(ResNet(**kwargs), **AS_PUBLISHED))


def _make(
    variant: str, build: Callable[..., nn.Module], pretrained: bool, given: dict[str, Any], kwargs: dict[str, Any]
) -> nn.Module:
    return build_model_with_cfg(build, variant, pretrained, **{"layers": (2, 2, 3, 2), **SMALL, **given, **kwargs})


@register_model
def resnext_small_octave(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` of octave convolutions, half of the channels at half resolution (`alpha`)."""
    return _make("resnext_small_octave", octave_resnet, pretrained, {"block": Bottleneck}, kwargs)


@register_model
def resnext_small_res2net(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` of Res2Net's blocks: width and groups of each 3x3 convolution divided over four scales."""
    return _make("resnext_small_res2net", _res2net, pretrained, {}, kwargs)


@register_model
def resnext_small_sk(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` of selective kernels, 3x3 with dilation 1 and 2, each as wide as the base's."""
    return _make("resnext_small_sk", _selective, pretrained, {}, kwargs)


@register_model
def resnext_small_dilated(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` with half of the groups of each 3x3 convolution at dilation 2."""
    return _make("resnext_small_dilated", _dilated_resnet, pretrained, {"block": Bottleneck}, kwargs)


@register_model
def resnext_small_pooled(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small` whose strided blocks take the mean of 2 x 2 and then do not stride: its parameters and cost."""
    return _make("resnext_small_pooled", _pooled_resnet, pretrained, {"block": Bottleneck}, kwargs)


@register_model
def resnext_small_elastic_pooled(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`resnext_small_elastic` whose strided blocks take the mean of 2 x 2 and then do not stride."""
    given = {"block": Bottleneck, "layers": (3, 5, 2, 2)}
    return _make("resnext_small_elastic_pooled", _pooled_elastic_resnet, pretrained, given, kwargs)
