"""The convolutions of an elastic block whose weights can be refitted, and what each should have put out.

What a rule tells (`surgery/sections.py`) names them; what is linear is found by trying: something is added to the
output of the convolution, and where that comes out at the end of the block, scaled by one number a channel, the block
is linear from there on. Then the convolution also makes up for what the block's shortcut lacks.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.conversion.probe import Call, last_activation, norms_after, run, tapped
from elastic_cnn.nn import ElasticBranches, ElasticSpec
from elastic_cnn.nn.split import is_standardized_convolution
from elastic_cnn.surgery.layers import find_gate
from elastic_cnn.surgery.report import Conversion
from elastic_cnn.surgery.repvgg_block import ElasticRepVggBlock
from elastic_cnn.surgery.sections import Section, layer

MOST_FEATURES = 5000  # of one regression: more would take gigabytes and minutes


@dataclass(frozen=True)
class Piece:
    """A convolution that adds to an output, and the upsampling between (None at full resolution)."""

    conv: nn.Conv2d
    up: nn.Module | None = None


@dataclass(frozen=True)
class Site:
    """One regression of a block.

    pieces: convolutions whose outputs sum; one alone where it is grouped, its groups regressed side by side.
    output: the module that puts out their sum, in the channels `channels` of it.
    target: the trained block's layer that put it out, in the channels `target_channels`; pooled by `pooling` where the
        site works at a lower resolution.
    scale: (C,) from this output to the block's end, None where what follows is not linear.
    norm: the one that follows, whose mean takes up a constant; None where a bias does (`bias`), or nothing.
    """

    name: str
    pieces: tuple[Piece, ...]
    output: nn.Module
    target: nn.Module
    channels: slice = field(default_factory=lambda: slice(None))
    target_channels: slice = field(default_factory=lambda: slice(None))
    pooling: int = 1
    scale: Tensor | None = None
    norm: Any = None
    channels_last: bool = False

    @property
    def groups(self) -> int:
        return self.pieces[0].conv.groups if len(self.pieces) == 1 else 1

    @property
    def bias(self) -> Tensor | None:
        return self.pieces[0].conv.bias if self.norm is None else None

    @property
    def features(self) -> int:
        """Of each group, the constant left out."""
        return sum(p.conv.in_channels // p.conv.groups * p.conv.weight[0, 0].numel() for p in self.pieces)


@dataclass
class Plan:
    """The sites of one block in order of running, and where its end is seen: `ends` in the elastic and trained block.

    notes: what is left as it was, and why.
    """

    ends: tuple[nn.Module | None, nn.Module | None]
    sites: list[Site] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keep(self, site: Site) -> None:
        """Take the site in, unless its weights cannot be regressed."""
        convs = [piece.conv for piece in site.pieces]
        if any(is_standardized_convolution(conv) for conv in convs):
            self.notes.append(f"{site.name}: its weights are standardised")
        elif any(piece.up is not None and any(True for _ in piece.up.parameters()) for piece in site.pieces):
            self.notes.append(f"{site.name}: its upsampling is trained")
        elif site.features > MOST_FEATURES:
            self.notes.append(f"{site.name}: {site.features} weights an output are too many to refit")
        else:
            self.sites.append(site)


def plan_sites(elastic: nn.Module, trained: nn.Module, how: Conversion, call: Call, inner: bool) -> Plan:
    """The sites of `elastic`, made of a block like `trained` as `how` says; `call`: how it is called.

    inner: also the grouped convolutions within branches, at the branches' resolution.
    """
    call = call.first(2)
    ends = (last_activation(elastic, call), last_activation(trained, call))
    plan = Plan(ends if all(ends) or not any(ends) else (None, None))
    members = [module for module in elastic.modules() if isinstance(module, ElasticBranches)]
    for section, branches in zip(how.sections(trained, how.spec), members, strict=True):
        if isinstance(elastic, ElasticRepVggBlock) and not elastic.reparameterized:
            _plan_parallel(plan, section, elastic, trained, call)
            continue
        if inner or section.last is None:
            _plan_inside(plan, section, branches, trained, how.spec)
        if section.last is not None:
            pieces = _pieces(branches)
            target = layer(trained, section.last)
            plan.keep(_finished(plan, Site(section.last, pieces, branches, target), section, elastic, call))
        for name, own_name in section.following:
            conv = layer(elastic, own_name)
            if conv.groups == 1 and max(conv.stride) == 1:
                site = Site(name, (Piece(conv),), conv, layer(trained, name))
                plan.keep(_finished(plan, site, section, elastic, call))
    return plan


def plan_mending(block: nn.Module, trained: nn.Module, call: Call) -> Plan:
    """The last convolution of a block that is not elastic from which on it is linear: with other weights it can mend a
    part of what earlier blocks lost."""
    call = call.first(2)
    ends = (last_activation(block, call), last_activation(trained, call))
    plan = Plan(ends if all(ends) or not any(ends) else (None, None))
    for name, conv in reversed(list(block.named_modules())):
        if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.stride) == 1:
            scale = scale_to_end(block, plan.ends[0], conv, slice(None), call)
            if scale is not None:
                norm = norms_after(block, [conv], call).get(conv)
                plan.keep(Site(name, (Piece(conv),), conv, layer(trained, name), scale=scale, norm=norm))
                break
    return plan


def _pieces(branches: ElasticBranches) -> tuple[Piece, ...]:
    found: list[Any] = [branches.high, *branches.low]
    return tuple(Piece(b.transform[-1], b.up if b.resamples else None) for b in found)


def _finished(plan: Plan, site: Site, section: Section, elastic: nn.Module, call: Call) -> Site:
    """The site with the scale to the block's end and the norm behind it."""
    return Site(
        site.name,
        site.pieces,
        site.output,
        site.target,
        site.channels,
        scale=scale_to_end(elastic, plan.ends[0], site.output, site.channels, call),
        norm=site.norm or norms_after(elastic, [site.output], call).get(site.output),
        channels_last=section.channels_last,
    )


def _plan_parallel(plan: Plan, section: Section, elastic: ElasticRepVggBlock, trained: nn.Module, call: Call) -> None:
    """The largest of a RepVGG block's parallel convolutions, which the others are parts of."""
    found: list[Any] = [elastic.branches.high, *elastic.branches.low]
    if section.last is None:
        plan.notes.append(f"{section.layers[0]}: parallel grouped convolutions")
        return
    pieces = []
    for branch in found:
        parallel: Any = branch.transform.convs
        pieces.append(Piece(parallel[0], branch.up if branch.resamples else None))
    channels = slice(0, pieces[0].conv.out_channels)
    site = Site(
        section.last, tuple(pieces), elastic.branches, layer(trained, section.last), channels, norm=elastic.norms[0]
    )
    plan.keep(_finished(plan, site, section, elastic, call))


def _plan_inside(
    plan: Plan, section: Section, branches: ElasticBranches, trained: nn.Module, spec: ElasticSpec
) -> None:
    """Grouped convolutions within branches: each is to put out what the trained one did, pooled; at the end of branches
    whose outputs stand side by side, the upsampled output is."""
    members: list[Any] = [branches.high, *branches.low]
    names = [
        name for name in section.layers if find_gate(layer(trained, name)) is None
    ]  # one gate for all stands outside
    begins = [0] * len(names)
    for branch, scale in zip(members, spec.scales, strict=True):
        layers = list(branch.transform)
        for number, name in enumerate(names):
            conv = layers[number]
            if not isinstance(conv, nn.Conv2d):
                continue
            own = slice(begins[number], begins[number] + conv.out_channels)
            begins[number] = own.stop
            if conv.groups == 1 and (section.last is not None or number + 1 < len(layers)):
                continue  # a pointwise one commutes with pooling: nothing to gain
            at_end = number + 1 == len(layers)
            follows = layers[number + 1] if not at_end else None
            plan.keep(
                Site(
                    f"{name} at 1/{scale}",
                    (Piece(conv, branch.up if at_end and branch.resamples else None),),
                    conv,
                    layer(trained, name),
                    target_channels=own,
                    pooling=scale if branch.resamples and not at_end else 1,
                    norm=follows if getattr(follows, "running_mean", None) is not None else None,
                )
            )


@torch.no_grad()
def scale_to_end(
    block: nn.Module, end: nn.Module | None, output: nn.Module, channels: slice, call: Call
) -> Tensor | None:
    """(C,) by which what is added to `output` comes out at the block's end; None where it does not come out so.

    end: the activation function before which the block ends, None for its output.
    """
    ends = ({"end": end}, {}) if end is not None else ({}, {"end": block})
    with tapped(ends[0], {**ends[1], "output": output}) as seen:
        run(block, call)
    before, there = seen["end"], seen["output"][:, channels]
    generator = torch.Generator().manual_seed(0)
    nudge = torch.randn(there.shape, generator=generator).to(there) * there.std()

    def add(_: nn.Module, __: Any, value: Tensor) -> Tensor:
        value = value.clone()
        value[:, channels] += nudge
        return value

    handle = output.register_forward_hook(add)
    try:
        with tapped(*ends) as seen:
            run(block, call)
    finally:
        handle.remove()
    moved = seen["end"] - before
    if moved.shape != nudge.shape:
        return None
    scale = (moved * nudge).sum((0, 2, 3)) / nudge.square().sum((0, 2, 3))
    wrong = (moved - scale[:, None, None] * nudge).square().sum() / moved.square().sum().clamp_min(1e-30)
    return scale if wrong < 1e-6 else None
