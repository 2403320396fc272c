"""Fold norms with fixed statistics into the layer before them.

In eval mode a batch norm is `y = scale * x + shift`, one scale and shift a channel, so a convolution before it can take
both into its weight and bias. The folding is done in float64 and rounded once.
"""

from typing import Any

from timm.layers import (
    Conv2dSame,
    GlobalResponseNormMlp,
    Mlp,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.layers.padding import pad_same
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from elastic_cnn.fast.describe import Unsupported
from elastic_cnn.fast.describe.judge import (
    has_hooks,
    is_batch_norm,
    is_exactly,
    require,
    require_fixed_norm,
    require_unhooked,
    scale_and_shift,
)
from elastic_cnn.fast.flow import follow
from elastic_cnn.fast.report import FormReport
from elastic_cnn.fast.rewrite import Change, Root
from elastic_cnn.nn import ElasticBranches, ElasticConv2d, GatedBranches, PartedBranches
from elastic_cnn.surgery.convnext_block import ElasticMlp

STANDARDIZED = (StdConv2d, StdConv2dSame, ScaledStdConv2d, ScaledStdConv2dSame)
BRANCHES = (ElasticBranches, PartedBranches, ElasticConv2d, GatedBranches)


class BakedConv2dSame(nn.Conv2d):
    """A convolution padded as TensorFlow's `SAME`, by the size of its input."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))
        return super().forward(pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation)))


# Layers that are linear in each output channel's weights and whose arithmetic is known here.
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, Conv2dSame, BakedConv2dSame)


def is_producer(module: nn.Module) -> bool:
    """Whether it can take in a norm that follows it."""
    return is_exactly(module, *LAYERS, *BRANCHES)


def fold_norms(root: Root, example: Any, report: FormReport) -> list[Change]:
    """Fold every norm that can be folded; `report` gets what was not, with reasons. `ValueError` as `follow`."""
    network = root.network
    flow = follow(network, is_producer, is_batch_norm, example)
    report.left.update(flow.reasons)
    changes = []
    for name, producer_name in flow.follows.items():
        norm, producer = network.get_submodule(name), network.get_submodule(producer_name)
        try:
            require_takes(producer, norm)
        except Unsupported as reason:
            report.left[name] = str(reason)
            continue
        change = Change(name, producer_name, "folded")
        scale_layer(change, producer, *scale_and_shift(norm))
        change.replace(root, norm, _what_remains(norm))
        changes.append(change)
    return changes


def require_takes(producer: Any, norm: Any) -> None:
    """`Unsupported` says why `producer` cannot take `norm` in."""
    require_fixed_norm(norm)
    for module in (norm, producer):
        require_unhooked(module)
    ends = [producer]
    if is_exactly(producer, *BRANCHES):
        ends = [last_layer(branch) for branch in (producer.high, *producer.low)]
        require(
            all(is_exactly(end, *LAYERS) for end in ends), "a branch ends in a layer whose arithmetic is not known here"
        )
        trained = any(True for branch in producer.low for _ in branch.up.parameters())
        require(not (trained and concatenates(producer)), "a trained upsampling changes a constant")
    channels = [_out_channels(end) for end in ends]
    whole = sum(channels) if concatenates(producer) else channels[0]
    require(len(norm.running_mean) == whole, "a norm over another dimension than the layer's outputs")


def _out_channels(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def concatenates(producer: Any) -> bool:
    """Whether the outputs of a layer's branches stand side by side rather than summed."""
    return bool(getattr(producer, "concatenates", False))


def last_layer(branch: Any) -> Any:
    """The convolution that ends a branch's transform."""
    return list(branch.transform.children())[-1]


def scale_layer(change: Change, layer: Any, scale: Tensor, shift: Tensor | None) -> None:
    """Let `layer` compute `scale * layer(x) + shift` (shift None: none)."""
    if isinstance(layer, ElasticBranches):
        _scale_branches(change, layer, scale, shift)
        return
    weight, bias = layer.weight.detach(), layer.bias
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        factors = scale.view(layer.groups, 1, weight.shape[1], 1, 1)
        folded = (weight.double().view(layer.groups, -1, *weight.shape[1:]) * factors).view(weight.shape)
    else:
        folded = weight.double() * scale.view([-1] + [1] * (weight.ndim - 1))
    change.set(layer, "weight", _parameter(folded, weight))
    if bias is not None:
        scaled = bias.detach().double() * scale
        change.set(layer, "bias", _parameter(scaled if shift is None else scaled + shift, weight))
    elif shift is not None:
        change.set(layer, "bias", _parameter(shift, weight))


def _scale_branches(change: Change, branches: ElasticBranches, scale: Tensor, shift: Tensor | None) -> None:
    """Let Equation 3's sum be multiplied by `scale` and moved by `shift`.

    Every upsampling is linear in each channel, so each branch's last convolution takes the scale. The shift goes to the
    first branch; where the branches' outputs are concatenated, each takes its part of both, which needs a shift
    that passes through the upsampling unchanged (`require_takes` asks).
    """
    layers = [last_layer(branch) for branch in (branches.high, *branches.low)]
    if concatenates(branches):
        sizes = [layer.out_channels for layer in layers]
        shifts = [None] * len(layers) if shift is None else list(shift.split(sizes))
        for layer, s, b in zip(layers, scale.split(sizes), shifts, strict=True):
            scale_layer(change, layer, s, b)
        return
    for i, layer in enumerate(layers):
        scale_layer(change, layer, scale, shift if i == 0 else None)


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)


def _what_remains(norm: Any) -> nn.Module:
    """What a norm does besides scale and shift: timm's fused activation and drop."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    kept = [part for part in parts if part is not None and not isinstance(part, nn.Identity)]
    if not kept:
        return nn.Identity()
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)


def fold_layer_scale(name: str, block: Any) -> Change | None:
    """ConvNeXt's layer scale multiplied into the last layer of its perceptron; None where that is not possible."""
    gamma: Any = getattr(block, "gamma", None)
    mlp: Any = getattr(block, "mlp", None)
    if not is_exactly(block, ConvNeXtBlock) or gamma is None:
        return None
    require_unhooked(block)
    change, scale = Change(name, "layer scale"), gamma.detach().double()
    if is_exactly(mlp, ElasticMlp):
        scale_layer(change, mlp.branches, scale, None)
    elif is_exactly(mlp, Mlp, GlobalResponseNormMlp) and is_exactly(mlp.fc2, nn.Linear, nn.Conv2d):
        scale_layer(change, mlp.fc2, scale, None)
    else:
        return None
    change.set(block, "gamma", None)
    return change


def bake_standardized(root: Root, report: FormReport) -> list[Change]:
    """Give convolutions that standardise their weight at each call the standardised weight."""
    changes = []
    for name, module in list(root.network.named_modules()):
        if not is_exactly(module, *STANDARDIZED) or has_hooks(module):
            continue
        changes.append(Change(name, "standardised weight"))
        changes[-1].replace(root, module, _baked(module))
    return changes


def _baked(conv: Any) -> nn.Conv2d:
    gain = (conv.gain.detach().double() * conv.scale).view(-1) if hasattr(conv, "gain") else None
    flat = conv.weight.detach().double().reshape(1, conv.out_channels, -1)
    weight = nn.functional.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=conv.eps)
    same = getattr(conv, "same_pad", False)
    baked = (BakedConv2dSame if same else nn.Conv2d)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        0 if same else conv.padding,
        conv.dilation,
        conv.groups,
        bias=conv.bias is not None,
        device="meta",
        dtype=conv.weight.dtype,
    )
    baked.weight = _parameter(weight.reshape_as(conv.weight), conv.weight)
    if conv.bias is not None:
        baked.bias = _parameter(conv.bias.detach(), conv.weight)
    return baked
