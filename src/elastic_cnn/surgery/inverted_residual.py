"""SUPERSEDED by chain.py + nn/gated.py (no rule uses this file any more; it goes away once nothing imports it):
an elastic inverted residual is now timm's own block whose `conv_pw` is a `PartedBranches`/`GatedBranches` and whose
other divided layers are `Identity`.

Inverted residual blocks with or without squeeze-and-excitation: timm's `InvertedResidual` (EfficientNet, MobileNet).

The expanded channels are divided over the branches, so each branch holds its part of the expansion, of the depthwise
convolution and of the projection:

    shortcut + bn3(sum_i U(project_i(g_i * relu(bn2_i(depthwise_i(relu(bn1_i(expand_i(D(x)))))))))))

Squeeze-and-excitation sees all expanded channels: it squeezes each branch at the branch's own resolution, the gate is
computed once from all of them, and each branch takes its part of it. With D = U = identity it is the block's function.
"""

import copy
from collections import OrderedDict
from typing import Any, Final

import torch
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from torch import Tensor, nn

from elastic_cnn.nn import CannotDivide, ElasticBranches, ElasticSpec, make_branches
from elastic_cnn.nn.resample import crop
from elastic_cnn.nn.split import divide_count, divide_groups, divide_inputs, divide_norm, divide_outputs


class GatedBranches(ElasticBranches):
    """Branches that share one squeeze-and-excitation between their inner layers and their projection.

    `(N, C_in, H, W)` -> `(N, C_out, H, W)`. The last layer of each branch's transform is the projection.
    """

    inner_layers: Final[int]
    parts: list[int]

    def __init__(self, branches: ElasticBranches, se: SqueezeExcite):
        super().__init__([branches.high, *branches.low])
        self.se = se
        members: list[Any] = [self.high, *self.low]
        self.parts = [branch.transform[-1].in_channels for branch in members]
        self.inner_layers = len(members[0].transform) - 1

    def forward(self, x: Tensor) -> Tensor:
        blend = float(self.low[0].blend)  # type: ignore[arg-type]
        if blend >= 1:
            return self._run(x, False)
        if blend <= 0:
            return self._run(x, True)
        return torch.lerp(self._run(x, True), self._run(x, False), blend)

    def _run(self, x: Tensor, full_resolution: bool) -> Tensor:
        """One pass; `full_resolution` leaves out D and U. Loops stand as TorchScript takes them."""
        high = x
        for i, layer in enumerate(self.high.transform):
            if i < self.inner_layers:
                high = layer(high)
        inner = [high]  # (N, expanded_i, H_i, W_i) each
        for branch in self.low:
            low = x if full_resolution else branch.down(x)  # type: ignore[operator]
            for i, layer in enumerate(branch.transform):  # type: ignore[arg-type]
                if i < self.inner_layers:
                    low = layer(low)
            inner.append(low)
        pooled = torch.cat([maps.mean((2, 3), keepdim=True) for maps in inner], 1)  # (N, expanded, 1, 1)
        gate = self.se.gate(self.se.conv_expand(self.se.act1(self.se.conv_reduce(pooled))))
        gates = torch.split(gate, self.parts, 1)
        y = self.high.transform[-1](inner[0] * gates[0])  # (N, C_out, H, W)
        height, width = y.shape[-2:]
        for i, branch in enumerate(self.low):
            low = inner[i + 1] * gates[i + 1]
            for j, layer in enumerate(branch.transform):  # type: ignore[arg-type]
                if j == self.inner_layers:
                    low = layer(low)
            y = y + (low if full_resolution else crop(branch.up(low), height, width))  # type: ignore[operator]
        return y


class ElasticInvertedResidual(nn.Module):
    """shortcut + bn3(branches(x)): `(N, C_in, H, W)` -> `(N, C_out, H, W)`, any height and width."""

    def __init__(self, branches: ElasticBranches, norm: nn.Module, drop_path: nn.Module, has_skip: bool):
        super().__init__()
        self.branches = branches
        self.bn3 = norm
        self.drop_path = drop_path
        self.has_skip = has_skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.branches(x))
        return self.drop_path(y) + x if self.has_skip else y

    def feature_info(self, location: str) -> dict[str, Any]:
        """Where timm's feature extraction hooks in: the block's output."""
        last: Any = self.branches.high.transform[-1]
        return {"module": "", "num_chs": last.out_channels}


def convert_inverted_residual(block: InvertedResidual, spec: ElasticSpec) -> ElasticInvertedResidual:
    """An elastic block with the weights of `block`.

    `CannotDivide` where the channels do not allow the shares, and for parts whose arithmetic is not known here.
    """
    se = block.se
    if block.conv_s2d is not None:
        raise CannotDivide("changes the resolution inside")
    if not isinstance(se, (nn.Identity, SqueezeExcite)):
        raise CannotDivide(f"its attention {type(se).__name__} mixes the channels that would be divided")
    if not isinstance(block.conv_dw, nn.Conv2d) or not isinstance(block.conv_pw, nn.Conv2d):
        raise CannotDivide(f"{type(block.conv_dw).__name__} is not a plain convolution")
    groups = divide_count(block.conv_dw.groups, spec.shares, "groups")
    depthwise = divide_groups(block.conv_dw, groups)
    parts = [conv.in_channels for conv in depthwise]
    pieces = zip(
        divide_outputs(block.conv_pw, parts),
        divide_norm(block.bn1, parts),
        depthwise,
        divide_norm(block.bn2, parts),
        divide_inputs(block.conv_pwl, parts),
        strict=True,
    )
    transforms = []
    for expand, norm1, conv, norm2, project in pieces:
        layers: dict[str, Any] = {"conv_pw": expand, "bn1": norm1, "conv_dw": conv, "bn2": norm2}
        if not isinstance(block.aa, nn.Identity):
            layers["aa"] = copy.deepcopy(block.aa)
        transforms.append(nn.Sequential(OrderedDict({**layers, "conv_pwl": project})))
    branches = make_branches(transforms, spec, probe="bn2")
    if isinstance(se, SqueezeExcite):
        branches = GatedBranches(branches, se)
    norm: Any = block.bn3
    return ElasticInvertedResidual(branches, norm, block.drop_path, block.has_skip)
