"""Block families whose layers run one after another, and the names of those layers: the rules of `chain.py`."""

from dataclasses import dataclass

import timm.models._efficientnet_blocks as mobile
import timm.models.byobnet as byobnet
import timm.models.cspnet as cspnet
import timm.models.maxxvit as maxxvit
import timm.models.nfnet as nfnet
import timm.models.regnet as regnet
import timm.models.resnetv2 as resnetv2
import timm.models.rexnet as rexnet
import timm.models.tresnet as tresnet
import torchvision.models as tv
from timm.layers import ConvNormAct
from timm.models.inception_resnet_v2 import Block8, Block17, Block35, Mixed_5b
from timm.models.inception_v3 import InceptionA, InceptionC, InceptionE
from timm.models.inception_v4 import InceptionA as InceptionV4A
from timm.models.inception_v4 import InceptionB as InceptionV4B
from timm.models.inception_v4 import InceptionC as InceptionV4C
from timm.models.inception_v4 import Mixed5a
from timm.models.xception import SeparableConv2d
from timm.models.xception_aligned import PreSeparableConv2d
from timm.models.xception_aligned import SeparableConv2d as AlignedSeparableConv2d
from torch import nn
from torchvision.ops import Conv2dNormActivation

# Modules that run their children one after another and do nothing besides: a chain goes on inside them. A layer of any
# other class is taken as it is, so what its own `forward` does (an activation, say) must be a child to be seen.
RUN_IN_ORDER = (nn.Sequential, ConvNormAct, Conv2dNormActivation)


@dataclass(frozen=True)
class ChainBlocks:
    """kind: the family's name in reports. types: its block classes. paths: dotted names of layers in order of running;
    a block goes without the layers that it does not have."""

    kind: str
    types: tuple[type[nn.Module], ...]
    paths: tuple[tuple[str, ...], ...]


def _numbered(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}_{number}" for number in range(1, count + 1))


CHAIN_BLOCKS: tuple[ChainBlocks, ...] = (
    ChainBlocks(
        "inverted residual",
        (mobile.InvertedResidual,),
        (("conv_pw", "bn1", "conv_dw", "bn2", "aa", "se", "conv_pwl"),),
    ),
    ChainBlocks("inverted residual", (mobile.UniversalInvertedResidual,), (("pw_exp", "dw_mid", "se", "pw_proj"),)),
    ChainBlocks(
        "inverted residual", (rexnet.LinearBottleneck,), (("conv_exp", "conv_dw", "se", "act_dw", "conv_pwl"),)
    ),
    ChainBlocks(
        "inverted residual",
        (maxxvit.MbConvBlock,),
        (("conv1_1x1", "norm1", "conv2_kxk", "se_early", "norm2", "se", "conv3_1x1"),),
    ),
    ChainBlocks("inverted residual", (tv.mobilenetv2.InvertedResidual,), (("conv",),)),
    ChainBlocks("inverted residual", (tv.mobilenetv3.InvertedResidual, tv.efficientnet.MBConv), (("block",),)),
    ChainBlocks("inverted residual", (tv.mnasnet._InvertedResidual, tv.maxvit.MBConv), (("layers",),)),
    ChainBlocks("inverted residual", (tv.shufflenetv2.InvertedResidual,), (("branch2",),)),
    ChainBlocks("fused inverted residual", (mobile.EdgeResidual,), (("conv_exp", "bn1", "aa", "se", "conv_pwl"),)),
    ChainBlocks("fused inverted residual", (tv.efficientnet.FusedMBConv,), (("block",),)),
    ChainBlocks(
        "separable convolution",
        (mobile.DepthwiseSeparableConv,),
        (("conv_dw", "bn1", "aa", "se", "conv_pw"),),
    ),
    ChainBlocks("separable convolution", (SeparableConv2d,), (("conv1", "pointwise"),)),
    ChainBlocks(
        "separable convolution",
        (AlignedSeparableConv2d, PreSeparableConv2d),
        (("conv_dw", "bn_dw", "act_dw", "conv_pw"),),
    ),
    ChainBlocks("RegNet bottleneck", (regnet.Bottleneck,), (("conv1", "conv2", "se", "conv3"),)),
    ChainBlocks(
        "pre-activation bottleneck", (regnet.PreBottleneck,), (("conv1", "norm2", "conv2", "se", "norm3", "conv3"),)
    ),
    ChainBlocks("RegNet bottleneck", (tv.regnet.ResBottleneckBlock,), (("f.a", "f.b", "f.se", "f.c"),)),
    ChainBlocks("pre-activation block", (resnetv2.PreActBasic,), (("conv1", "norm2", "conv2"),)),
    ChainBlocks(
        "pre-activation bottleneck", (resnetv2.PreActBottleneck,), (("conv1", "norm2", "conv2", "norm3", "conv3"),)
    ),
    ChainBlocks("bottleneck", (resnetv2.Bottleneck,), (("conv1", "norm1", "conv2", "norm2", "conv3"),)),
    ChainBlocks("norm-free block", (nfnet.NormFreeBlock,), (("conv1", "act2", "conv2", "act2b", "conv2b"),)),
    ChainBlocks("cross-stage partial block", (cspnet.DarkBlock, cspnet.EdgeBlock), (("conv1", "attn", "conv2"),)),
    ChainBlocks("cross-stage partial block", (cspnet.BottleneckBlock,), (("conv1", "conv2", "attn2", "conv3"),)),
    ChainBlocks("basic block", (byobnet.BasicBlock,), (("conv1_kxk", "attn", "conv2_kxk"),)),
    ChainBlocks(
        "bottleneck", (byobnet.BottleneckBlock,), (("conv1_1x1", "conv2_kxk", "conv2b_kxk", "attn", "conv3_1x1"),)
    ),
    ChainBlocks("dark block", (byobnet.DarkBlock,), (("conv1_1x1", "attn", "conv2_kxk"),)),
    ChainBlocks("edge block", (byobnet.EdgeBlock,), (("conv1_kxk", "attn", "conv2_1x1"),)),
    ChainBlocks("basic block", (tresnet.BasicBlock,), (("conv1", "conv2"),)),
    ChainBlocks("bottleneck", (tresnet.Bottleneck,), (("conv1", "conv2", "se", "conv3"),)),
    ChainBlocks(
        "inception block",
        (InceptionA, InceptionC, InceptionE),
        (
            _numbered("branch5x5", 2),
            (*_numbered("branch3x3dbl", 3),),
            _numbered("branch7x7", 3),
            _numbered("branch7x7dbl", 5),
        ),
    ),
    ChainBlocks(
        "inception block",
        (
            Mixed5a,
            InceptionV4A,
            InceptionV4B,
            Mixed_5b,
            Block35,
            Block17,
            Block8,
        ),
        (("branch0",), ("branch1",), ("branch2",), ("branch3",)),
    ),
    ChainBlocks("inception block", (InceptionV4C,), (("branch2_0", "branch2_1", "branch2_2"),)),
)
