"""Equation 3 of the paper: parallel branches at several resolutions, summed at the resolution of the first.

y = sum_i U_{r_i}( T_i( D_{r_i}(x) ) ),    r_1 = 1
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from elastic_cnn.nn.resample import (
    DOWNSAMPLE_KINDS,
    FULL_RESOLUTION_KINDS,
    UPSAMPLE_KINDS,
    Shifted,
    Widened,
    crop,
    make_downsample,
    make_upsample,
)


@dataclass(frozen=True)
class ElasticSpec:
    """How a layer is divided over resolutions (paper, section 3 and Tables 6 and 7).

    scales: downsampling factor of each branch; the first must be 1, none may repeat.
    shares: fraction of the channels (of the groups, where the convolution is grouped) of each branch; they sum to 1.
    downsample: D, one of `area` (average pooling, the paper's choice), `nearest`, `bilinear`, `trained`, and for
        branches that keep their resolution and dilate their convolutions instead: `dilated`, `dilated_area`. `identity`
        changes nothing (every branch at full resolution), which is of use in tests.
    upsample: U, one of `bilinear` (half-pixel, the paper's choice), `nearest`, `trained`, `identity`.

    Raises `ValueError` for values that do not describe a division.
    """

    scales: tuple[int, ...] = (1, 2)
    shares: tuple[float, ...] = (0.5, 0.5)
    downsample: str = "area"
    upsample: str = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(self.scales))
        object.__setattr__(self, "shares", tuple(self.shares))
        if any(not isinstance(scale, int) or isinstance(scale, bool) or scale < 1 for scale in self.scales):
            raise ValueError(f"scales must be positive whole numbers, got {self.scales}")
        if len(self.scales) < 2 or self.scales[0] != 1:
            raise ValueError(f"scales must start with 1 and name at least two resolutions, got {self.scales}")
        if len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales must differ from one another, got {self.scales}")
        if len(self.shares) != len(self.scales):
            raise ValueError(f"one share for each of the scales {self.scales}, got {self.shares}")
        if not all(share > 0 for share in self.shares) or not math.isclose(sum(self.shares), 1, abs_tol=1e-6):
            raise ValueError(f"shares must be positive and sum to 1, got {self.shares}")
        if self.downsample not in DOWNSAMPLE_KINDS:
            raise ValueError(f"unknown downsampling {self.downsample!r}; choose from {', '.join(DOWNSAMPLE_KINDS)}")
        if self.upsample not in UPSAMPLE_KINDS:
            raise ValueError(f"unknown upsampling {self.upsample!r}; choose from {', '.join(UPSAMPLE_KINDS)}")
        if self.downsample not in FULL_RESOLUTION_KINDS and self.upsample == "identity":
            raise ValueError(f"downsampling {self.downsample!r} needs an upsampling other than 'identity'")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>1/{scale}</th>" for scale in self.scales)
        cells = "".join(f"<td>{share:.1%}</td>" for share in self.shares)
        return f"<table><tr><th>resolution</th>{head}</tr><tr><td>channels</td>{cells}</tr></table>"

    @property
    def changes_resolution(self) -> bool:
        """Whether branches run below full resolution at all."""
        return self.downsample not in FULL_RESOLUTION_KINDS

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as JSON and YAML hold them."""
        fields = asdict(self)
        return {**fields, "scales": list(self.scales), "shares": list(self.shares)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "ElasticSpec":
        """The inverse of `to_dict`. `ValueError` names an unknown field."""
        unknown = sorted(set(fields) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown fields of an elastic spec: {', '.join(map(repr, unknown))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


class Branch(nn.Module):
    """One term of Equation 3: U_r(T(D_r(x))).

    probe: the child of `transform` whose output is this branch's activation in Equation 5.
    blend: 1 computes the term as it stands; 0 runs T at full resolution instead, as the layer did before it was made
    elastic; between them, the weighted mean of both (see `set_blend`).
    """

    scale: Final[int]
    resamples: Final[bool]
    blend: float

    def __init__(self, transform: nn.Sequential, scale: int, down: nn.Module, up: nn.Module, probe: str):
        super().__init__()
        self.scale = scale
        self.resamples = not isinstance(up, nn.Identity)
        self.down = down
        self.transform = transform
        self.up = up
        self.probe = probe
        self.blend = 1.0

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', >= H, >= W)
        if self.blend >= 1 or not self.resamples:
            return self.up(self.transform(self.down(x)))
        full = self.transform(x)  # (N, C', H, W)
        if self.blend <= 0:
            return full
        low = crop(self.up(self.transform(self.down(x))), full.shape[-2], full.shape[-1])
        return torch.lerp(full, low, self.blend)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class ElasticBranches(nn.Module):
    """Equation 3 before the nonlinearity: runs every branch and sums them at the first branch's resolution.

    Input `(N, C_in, H, W)` of any height and width, output `(N, C_out, H, W)`.
    """

    def __init__(self, branches: Sequence[Branch]):
        super().__init__()
        self.high = branches[0]
        self.low = nn.ModuleList(branches[1:])

    def forward(self, x: Tensor) -> Tensor:
        y = self.high(x)  # (N, C_out, H, W)
        height, width = y.shape[-2:]
        for branch in self.low:
            low = branch(x)
            if branch.resamples:
                low = crop(low, height, width)
            y = y + low
        return y


class PartedBranches(ElasticBranches):
    """Branches that may each see a part of the input's channels, and whose outputs are summed or concatenated.

    parts: input channels of each branch, or empty where each sees all of them.
    concatenates: whether the branches' outputs stand side by side (their output channels add up) instead of summed.
    """

    parts: list[int]
    concatenates: Final[bool]

    def __init__(self, branches: ElasticBranches, parts: Sequence[int], concatenates: bool):
        super().__init__([branches.high, *branches.low])
        self.parts = list(parts)
        self.concatenates = concatenates

    def forward(self, x: Tensor) -> Tensor:
        inputs = torch.split(x, self.parts, dim=1) if len(self.parts) > 0 else [x] * (1 + len(self.low))
        outputs = [self.high(inputs[0])]
        height, width = outputs[0].shape[-2:]
        for i, branch in enumerate(self.low):
            low = branch(inputs[i + 1])
            outputs.append(crop(low, height, width) if branch.resamples else low)
        return self._joined(outputs)

    def _joined(self, outputs: list[Tensor]) -> Tensor:
        """The branches' maps (N, C_i, H, W) side by side, or their sum."""
        if self.concatenates:
            return torch.cat(outputs, dim=1)
        y = outputs[0]
        for low in outputs[1:]:
            y = y + low
        return y

    def extra_repr(self) -> str:
        return f"parts={self.parts}, concatenates={self.concatenates}"


def set_blend(network: nn.Module, blend: float) -> int:
    """Move every low branch of `network` between full resolution (0) and its own (1); returns how many there are.

    At 0 a network fresh from `elasticize` computes the very function of the network it was made from; at 1 the full
    resolution costs nothing any more. `ValueError` outside 0..1 and for a network without elastic layers.
    """
    if not 0 <= blend <= 1:
        raise ValueError(f"blend must lie between 0 and 1, got {blend}")
    branches = [module for module in network.modules() if isinstance(module, Branch) and module.resamples]
    if not branches:
        raise ValueError(f"{type(network).__name__} has no low-resolution branch to blend; make it elastic first")
    for branch in branches:
        branch.blend = float(blend)
    return len(branches)


def dilate(transform: nn.Module, factor: int) -> None:
    """Dilate every convolution wider than 1 x 1 by `factor`, keeping the size of its output; in place."""
    for module in transform.modules():
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            module.dilation = tuple(factor * d for d in module.dilation)
            if isinstance(module.padding, tuple):
                module.padding = tuple(factor * p for p in module.padding)


def make_branches(
    transforms: Sequence[nn.Sequential], spec: ElasticSpec, probe: str, margin: tuple[int, int] = (0, 0)
) -> ElasticBranches:
    """Put D and U of `spec` around one transform a branch. Device and dtype follow the transforms' weights.

    margin: rows and columns that the transforms take off each side of a map at full resolution.
    """
    branches = []
    for transform, scale in zip(transforms, spec.scales, strict=True):
        convolutions = [module for module in transform.modules() if isinstance(module, nn.Conv2d)]
        first, last = convolutions[0], convolutions[-1]
        options = {"device": first.weight.device, "dtype": first.weight.dtype}
        down = make_downsample(spec.downsample, scale, first.in_channels, **options)
        up = make_upsample(
            spec.upsample if spec.changes_resolution else "identity", scale, last.out_channels, **options
        )
        if any(margin) and scale > 1 and spec.changes_resolution:
            down, up = Widened(down, scale, margin), Shifted(up, scale, margin)
        if spec.downsample.startswith("dilated") and scale > 1:
            dilate(transform, scale)
        branches.append(Branch(transform, scale, down, up, probe))
    return ElasticBranches(branches)
