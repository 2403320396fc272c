"""Which layers can be divided: those that treat each channel by itself, and gates over all of them."""

from collections import OrderedDict
from typing import Any

import timm.layers.activations as timm_activations
from timm.layers.drop import DropBlock2d
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import nn
from torchvision.ops import SqueezeExcitation

_MIXES_OR_HAS_WEIGHTS = (nn.PReLU, nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)
_DROPS = (nn.Dropout, nn.Dropout2d, DropBlock2d)


def is_norm(module: nn.Module) -> bool:
    """Whether it is a normalisation (`divide_norm` says whether it can be divided)."""
    return (
        isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm))
        or "Norm" in type(module).__name__
    )


def is_elementwise(module: nn.Module) -> bool:
    """Whether it has no weights and treats every number, or every channel, by itself."""
    if isinstance(module, _MIXES_OR_HAS_WEIGHTS) or any(True for _ in module.parameters()):
        return False
    known = (nn.modules.activation.__name__, timm_activations.__name__)
    return isinstance(module, _DROPS) or type(module).__module__ in known


def find_gate(module: nn.Module) -> nn.Module | None:
    """The layers from means over positions to gates within a squeeze-and-excitation; None for any other module.

    They keep their names, so their weights keep theirs.
    """
    se: Any = module
    if getattr(se, "add_maxpool", False):
        return None
    names: tuple[str, ...] = ()
    if type(se) is SqueezeExcite:
        names = ("conv_reduce", "act1", "conv_expand", "gate")
    elif type(se) is SEModule:
        names = ("fc1", "bn", "act", "fc2", "gate")
    elif type(se) is EffectiveSEModule:
        names = ("fc", "gate")
    elif type(se) is SqueezeExcitation:
        names = ("fc1", "activation", "fc2", "scale_activation")
    return nn.Sequential(OrderedDict((name, getattr(se, name)) for name in names)) if names else None
