"""Octave convolution, from the formulas of Chen et al., "Drop an Octave", ICCV 2019 (arXiv 1904.05049), Equation 3:

    Y_high = f(X_high; W_hh) + up(f(X_low; W_lh)),    Y_low = f(X_low; W_ll) + f(pool(X_high); W_hl)

A map is stored as two: a part `alpha` of the channels at half resolution, the others at full. `pool` is the mean over
2 x 2, `up` the nearest neighbour; strided layers pool first, grouped ones group all four convolutions (Section 3.3).
"""

from typing import Any

import torch.nn.functional as F
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from elastic_cnn.nn.resample import AreaDownsample

Maps = tuple[Tensor, Tensor]  # (N, C_high, H, W) and (N, C_low, ceil(H / 2), ceil(W / 2))


class OctaveConv2d(nn.Module):
    """A k x k convolution without bias from `alpha_in` to `alpha_out`, the parts of the channels at low resolution.

    With 0 on one side, that side is a plain map (N, C, H, W); else `Maps`. The parameters are those of the plain
    convolution (less the parts that grouping cuts, which it cuts there as well).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, alpha_in: float, alpha_out: float,
        stride: int = 1, groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        ins, outs = _divide(in_channels, alpha_in, groups), _divide(out_channels, alpha_out, groups)
        options: dict[str, Any] = {"padding": kernel_size // 2, "groups": groups, "bias": False}

        def conv(inputs: int, outputs: int) -> nn.Module | None:
            return nn.Conv2d(inputs, outputs, kernel_size, **options) if inputs and outputs else None

        self.high_to_high = nn.Conv2d(ins[0], outs[0], kernel_size, **options)
        self.high_to_low, self.low_to_high = conv(ins[0], outs[1]), conv(ins[1], outs[0])
        self.low_to_low = conv(ins[1], outs[1])
        self.pool, self.stride = AreaDownsample(2), stride

    def forward(self, x: Tensor | Maps) -> Tensor | Maps:
        high, low = x if isinstance(x, tuple) else (x, None)
        if self.stride == 2:
            high, low = self.pool(high), None if low is None else self.pool(low)
        result = self.high_to_high(high)
        if low is not None and self.low_to_high is not None:
            up = F.interpolate(self.low_to_high(low), scale_factor=2.0, mode="nearest")
            result = result + up[..., : high.shape[-2], : high.shape[-1]]
        if self.high_to_low is None:
            return result
        small = self.high_to_low(self.pool(high))
        if low is not None and self.low_to_low is not None:
            small = small + self.low_to_low(low)
        return result, small


class OctaveNorm(nn.Module):
    """A batch norm for each resolution, and ReLU where `relu` says so."""

    def __init__(self, channels: int, alpha: float, groups: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(part) for part in _divide(channels, alpha, groups) if part])
        self.relu = relu

    def forward(self, x: Tensor | Maps) -> Tensor | Maps:
        maps = [norm(part) for norm, part in zip(self.norms, x if isinstance(x, tuple) else (x,), strict=True)]
        if self.relu:
            maps = [F.relu(part, inplace=True) for part in maps]
        return maps[0] if len(maps) == 1 else (maps[0], maps[1])


class OctaveBottleneck(nn.Module):
    """timm's `Bottleneck` with octave convolutions in place of its own, new weights."""

    def __init__(self, block: Bottleneck, alpha_in: float, alpha_out: float) -> None:
        super().__init__()
        alpha = max(alpha_in, alpha_out)  # inside
        stride, groups = int(block.conv2.stride[0]), block.conv2.groups
        width, outputs = block.conv2.in_channels, block.conv3.out_channels
        self.conv1 = OctaveConv2d(block.conv1.in_channels, width, 1, alpha_in, alpha)
        self.norm1 = OctaveNorm(width, alpha, groups)
        self.conv2 = OctaveConv2d(width, width, 3, alpha, alpha, stride, groups)
        self.norm2 = OctaveNorm(width, alpha, groups)
        self.conv3 = OctaveConv2d(width, outputs, 1, alpha, alpha_out)
        self.norm3 = OctaveNorm(outputs, alpha_out, relu=False)
        self.shortcut: nn.Module = nn.Identity()
        if block.downsample is not None or alpha_in != alpha_out:
            self.shortcut = nn.Sequential(
                OctaveConv2d(block.conv1.in_channels, outputs, 1, alpha_in, alpha_out, stride),
                OctaveNorm(outputs, alpha_out, relu=False),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as timm does
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for norm in self.norm3.norms.children():
            nn.init.zeros_(norm.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor | Maps) -> Tensor | Maps:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        y, shortcut = self.norm3(self.conv3(y)), self.shortcut(x)
        if isinstance(y, tuple):
            return F.relu(y[0] + shortcut[0], inplace=True), F.relu(y[1] + shortcut[1], inplace=True)
        return F.relu(y + shortcut, inplace=True)


def octave_resnet(alpha: float = 0.5, **kwargs: Any) -> nn.Module:
    """timm's `ResNet` of bottlenecks with octave convolutions, from the first block to the first of the last stage.

    From there on all is at full resolution, as in the paper's networks. `ValueError` where `alpha` is not within 0..1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha} must lie between 0 and 1: the part of the channels at half resolution")
    network: Any = ResNet(**kwargs)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    for stage in stages:
        for place, block in enumerate(stage):
            last, first = stage is stages[-1], stage is stages[0] and place == 0
            if last and place:
                break
            stage[place] = OctaveBottleneck(block, 0.0 if first else alpha, 0.0 if last else alpha)
    return network


def pool_strides(network: nn.Module) -> nn.Module:
    """timm's `ResNet` whose strided bottlenecks become octave ones without low resolution, in place: what is left of
    octave convolution there is the mean of 2 x 2 before the convolution, in place of its stride."""
    stages: Any = network.children()
    for stage in stages:
        for place, block in enumerate(stage) if isinstance(stage, nn.Sequential) else ():
            if isinstance(block, Bottleneck) and block.conv2.stride[0] == 2:
                stage[place] = OctaveBottleneck(block, 0.0, 0.0)
    return network


def _divide(channels: int, alpha: float, groups: int) -> tuple[int, int]:
    """Channels at full and at half resolution, whole groups of each. `ValueError` where one of them would be empty."""
    low = round(alpha * channels / groups) * groups
    if alpha and not 0 < low < channels:
        raise ValueError(f"alpha={alpha} leaves no channel of {channels} in {groups} groups at one resolution")
    return channels - low, low
