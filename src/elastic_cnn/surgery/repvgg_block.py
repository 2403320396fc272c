"""Blocks of parallel convolutions that become one after training: timm's `RepVggBlock` and `MobileOneBlock`.

    act(attn(norm_id(x) + sum_k norm_k(conv_k(x))))

All convolutions of a branch see the same map, so each branch pools once, runs its part of every convolution, and
upsamples their outputs together. The norms, one a convolution, run on the whole. `reparameterize` then makes one
convolution a branch of them, as it does in the block that this one was made from.
"""

from collections import OrderedDict
from typing import Any

import torch
from timm.models.byobnet import MobileOneBlock, RepVggBlock
from torch import Tensor, nn
from torch.nn import functional as F

from elastic_cnn.nn import CannotDivide, ElasticSpec, PartedBranches, convert_convolution, make_branches
from elastic_cnn.nn.split import divide_count, divide_groups, divide_inputs
from elastic_cnn.surgery.sections import Section, section_of_convolution

BLOCKS = (RepVggBlock, MobileOneBlock)


class ParallelConvolutions(nn.ModuleList):
    """(N, C, H, W) -> (N, convolutions x C', H, W): the outputs of all, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([conv(x) for conv in self], dim=1)


class ElasticRepVggBlock(nn.Module):
    """`(N, C, H, W)` -> `(N, C', H, W)`, any height and width. `reparameterized` once `reparameterize` was called."""

    def __init__(
        self,
        branches: PartedBranches,
        norms: nn.ModuleList,
        identity: nn.Module | None,
        drop_path: nn.Module,
        attn: nn.Module,
        act: nn.Module,
    ):
        super().__init__()
        self.branches = branches
        self.norms = norms
        self.identity = identity
        self.drop_path = drop_path
        self.attn = attn
        self.act = act
        members: list[Any] = [branches.high, *branches.low]
        if not branches.concatenates:  # sums: the first branch's widths are all there are
            members = members[:1]
        self.widths = [conv.out_channels for branch in members for conv in branch.transform.convs]

    @property
    def reparameterized(self) -> bool:
        return len(self.norms) == 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches(x)
        if not self.reparameterized:
            y = self._sum_of_norms(y)
        y = self.drop_path(y)
        if self.identity is not None:
            y = y + self.identity(x)
        return self.act(self.attn(y))

    def _sum_of_norms(self, y: Tensor) -> Tensor:  # (N, branches' outputs of every convolution, H, W) -> (N, C', H, W)
        maps = torch.split(y, self.widths, dim=1)  # branch by branch, convolution by convolution in each
        total = torch.zeros(1, dtype=y.dtype, device=y.device)
        for k, norm in enumerate(self.norms):
            parts = [maps[i] for i in range(k, len(maps), len(self.norms))]
            total = total + norm(torch.cat(parts, dim=1))
        return total

    @torch.no_grad()
    def reparameterize(self) -> None:
        """One convolution a branch instead of several, with the norms' statistics folded in: the same function in eval
        mode, up to rounding. In place; does nothing the second time."""
        if self.reparameterized:
            return
        scales, biases = zip(*(_affine(norm) for norm in self.norms), strict=True)  # C' each
        branches: list[Any] = [self.branches.high, *self.branches.low]
        begin = 0
        for index, branch in enumerate(branches):
            convs = branch.transform.convs
            width = convs[0].out_channels
            own = slice(begin, begin + width)
            largest: nn.Conv2d = max(convs, key=lambda conv: conv.kernel_size[0])
            weight = torch.stack(
                [_pad(c.weight, largest) * s[own, None, None, None] for c, s in zip(convs, scales, strict=True)]
            )
            fused = nn.Conv2d(
                largest.in_channels,
                width,
                largest.kernel_size,  # type: ignore[arg-type]
                padding=largest.padding,  # type: ignore[arg-type]
                groups=largest.groups,
                bias=self.branches.concatenates or index == 0,
            ).to(weight)
            fused.weight.copy_(weight.sum(0))
            if fused.bias is not None:
                fused.bias.copy_(torch.stack(biases).sum(0)[own])
            branch.transform = nn.Sequential(OrderedDict(convs=fused))
            begin += width if self.branches.concatenates else 0
        self.norms = nn.ModuleList()


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in eval mode."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _pad(weight: Tensor, like: nn.Conv2d) -> Tensor:
    """A kernel with zeros around it, of the size of `like`'s."""
    border = (like.kernel_size[0] - weight.shape[-1]) // 2
    return F.pad(weight, [border] * 4)


def convert_repvgg_block(block: Any, spec: ElasticSpec) -> nn.Module:
    """An elastic block with the weights of `block`, before or after its own reparameterization.

    `CannotDivide` where the channels or groups are too few for the shares.
    """
    if block.reparam_conv is not None:
        parts = nn.Sequential(OrderedDict(conv=convert_convolution(block.reparam_conv, spec), attn=block.attn))
        parts.add_module("act", block.act)
        return parts
    if spec.upsample == "trained":
        raise CannotDivide("its parallel convolutions share one upsampling, which cannot be trained for each")
    wholes: list[Any] = [*block.conv_kxk] if isinstance(block.conv_kxk, nn.ModuleList) else [block.conv_kxk]
    wholes += [one for one in (getattr(block, "conv_1x1", None), getattr(block, "conv_scale", None)) if one is not None]
    first = wholes[0].conv
    grouped = first.groups > 1
    if grouped:
        counts = divide_count(first.groups, spec.shares, "groups")
    else:
        counts = divide_count(first.in_channels, spec.shares, "input channels")
    divide = divide_groups if grouped else divide_inputs
    pieces = list(zip(*(divide(whole.conv, counts) for whole in wholes), strict=True))  # [branch][convolution]
    transforms = [nn.Sequential(OrderedDict(convs=ParallelConvolutions(convs))) for convs in pieces]
    parts_of_input = [convs[0].in_channels for convs in pieces]
    branches = PartedBranches(make_branches(transforms, spec, probe="convs"), parts_of_input, concatenates=grouped)
    norms = nn.ModuleList(whole.bn for whole in wholes)
    return ElasticRepVggBlock(branches, norms, block.identity, block.drop_path, block.attn, block.act)


def repvgg_sections(block: Any, spec: ElasticSpec) -> list[Section]:
    """Its branches divide the channels that it is given (the groups, where it has them)."""
    if block.reparam_conv is not None:
        return [section_of_convolution("reparam_conv", block.reparam_conv)]
    largest = "conv_kxk.0.conv" if isinstance(block.conv_kxk, nn.ModuleList) else "conv_kxk.conv"
    return [section_of_convolution(largest, block.get_submodule(largest))]
