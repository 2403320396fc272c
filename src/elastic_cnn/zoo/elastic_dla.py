"""DLA-X of the paper's Tables 2 and 9, as timm entries: timm's `DLA` with the paper's levels, made elastic. The name of
this module must differ from timm's `dla`, whose registry group it would join otherwise.

The bases `dla60x` and `dla102x` are timm's own. timm's trees hold no projection that is not used, unlike the released
code's, so the networks have 17.352M parameters where the paper counts 17.6M.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, checkpoint, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.dla import DLA, DlaBottleneck, DlaTree
from torch import Tensor, nn

from elastic_cnn.nn.resample import CeilMaxPool
from elastic_cnn.zoo.config import elastic_builder, pretrained_config

CHANNELS = (16, 32, 128, 256, 512, 1024)
LEVELS = ("level0", "level1", "level2", "level3", "level4", "level5")


def accept_any_size(network: nn.Module) -> nn.Module:
    """Let timm's DLA take any height and width, in place; at multiples of 32 it computes what it did.

    Its pooled shortcuts round an odd size down where its strided convolutions round up; now both round up.
    Other networks are returned as they are.
    """
    for module in network.modules():
        if isinstance(module, DlaTree) and isinstance(module.downsample, nn.MaxPool2d):
            factor = module.downsample.stride
            module.downsample = CeilMaxPool(factor if isinstance(factor, int) else factor[0])
    return network


class AnySizeDLA(DLA):
    """timm's DLA for images of any height and width, with gradient checkpointing of its levels."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.grad_checkpointing = False
        accept_any_size(self)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether training keeps the output of each level alone and computes the rest again when it is needed."""
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, C, ceil(H / 32), ceil(W / 32))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return self.forward_intermediates(x, 1)[0]
        x = self.base_layer(x)  # TorchScript knows neither super() nor a loop over names
        x = self.level0(x)
        x = self.level1(x)
        x = self.level2(x)
        x = self.level3(x)
        x = self.level4(x)
        return self.level5(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """As timm's: the outputs of the levels `indices`, counted from 0 (stride 1) to 5 (stride 32)."""
        if output_fmt != "NCHW":
            raise ValueError(f"feature maps have the format NCHW, not {output_fmt!r}")
        taken, last = feature_take_indices(len(LEVELS), indices)
        intermediates = []
        x = self.base_layer(x)
        for index, name in enumerate(LEVELS[: last + 1] if stop_early else LEVELS):
            level = getattr(self, name)
            x = checkpoint(level, x) if self.grad_checkpointing and x.requires_grad else level(x)
            if index in taken:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)


def _build(variant: str, pretrained: bool, arguments: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    arguments = {
        "channels": CHANNELS,
        "block": DlaBottleneck,
        "cardinality": 32,
        "base_width": 4,
        "feature_cfg": {"out_indices": (1, 2, 3, 4, 5)},
        **arguments,
        **kwargs,
    }
    return build_model_with_cfg(elastic_builder(AnySizeDLA), variant, pretrained, **arguments)


_CONFIG = {"first_conv": "base_layer.0"}
default_cfgs = generate_default_cfgs(
    {
        "dla60x_elastic": pretrained_config(**_CONFIG),
        "dla102x_selastic": pretrained_config(**_CONFIG),
        "dla102x_elastic": pretrained_config(**_CONFIG),
    }
)


@register_model
def dla60x_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DLA-X60+Elastic (Table 2), the same as +sElastic: the base's levels, so fewer multiply-adds."""
    return _build("dla60x_elastic", pretrained, {"levels": (1, 1, 1, 2, 3, 1)}, kwargs)


@register_model
def dla102x_selastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DLA-X102+sElastic (Table 9): the base's levels and split 32."""
    return _build("dla102x_selastic", pretrained, {"levels": (1, 1, 1, 3, 4, 1), "shortcut_root": True}, kwargs)


@register_model
def dla102x_elastic(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """DLA-X102+Elastic (Table 2): fewer deep levels and split 50 give the base's multiply-adds again."""
    arguments = {"levels": (1, 1, 3, 3, 3, 1), "cardinality": 50, "shortcut_root": True}
    return _build("dla102x_elastic", pretrained, arguments, kwargs)
