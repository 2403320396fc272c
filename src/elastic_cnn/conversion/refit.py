"""Refit: the weights with which an elastic block comes nearest to the trained block's own output, without labels.

Block by block in the order of running. The elastic block gets what the elastic network gives it, the trained block what
the trained network does, so that a later block also mends what earlier ones broke. In each block the convolutions of
`sites.py` are refitted one after another by ridge regression (`ridge.py`), and the block keeps its new weights only
where they lower its error on the calibration photos.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn.conversion.feed import Feed
from elastic_cnn.conversion.keep import Keep
from elastic_cnn.conversion.pair import Error, Pair
from elastic_cnn.conversion.probe import Flow, Seen
from elastic_cnn.conversion.ridge import HOLD_OUT, NormalEquations, add_to_weight, best_ridge, rows_of, shifts
from elastic_cnn.conversion.sites import Piece, Site, plan_mending, plan_sites
from elastic_cnn.nn.resample import crop
from elastic_cnn.surgery.report import Conversion


@dataclass(frozen=True)
class Refit:
    """ridge: how strongly the trained weights pull, as a part of the features' mean square; None chooses it for each
    regression, on a quarter of the photos.
    samples: positions that a regression sees, per weight of an output, at least `least` of them; all where there are
    no more. inner: also the grouped convolutions within branches. mend: also one convolution of each block behind the
    first elastic one that is not elastic itself. seed: of the positions drawn.
    """

    ridge: float | None = None
    samples: float = 16
    least: int = 32000
    inner: bool = True
    mend: bool = True
    seed: int = 0


@dataclass(frozen=True)
class BlockRefit:
    """One block: the error of its output relative to the trained block's variance, before and after, on the
    calibration photos. notes: what was left as it was, and why."""

    name: str
    before: float
    after: float
    notes: tuple[str, ...] = ()


@torch.no_grad()
def refit(
    elastic: nn.Module,
    trained: nn.Module,
    images: Sequence[Tensor],
    blocks: Mapping[str, Conversion],
    flow: Flow,
    options: Refit,
    memory: float,
    done: Callable[[BlockRefit], None] = lambda block: None,
    keep: Keep | None = None,
) -> list[BlockRefit]:
    """Refit the weights of `elastic` in place, towards what `trained` computes.

    Both in eval mode, `trained` with its channels in the order in which `elastic` was made of it. images: batches
    (N, C, H, W). blocks: {name: how it was made elastic}. flow: of all blocks that are worth stopping at. done: called
    after each block. keep: where finished blocks are kept, and taken up.
    """
    finished = {} if keep is None else keep.load(elastic)
    feeds = Feed(elastic, images, flow, memory / 3), Feed(trained, images, flow, memory / 3)
    reports: list[BlockRefit] = []
    for name in flow.order:
        for feed in feeds:
            feed.move(name)
        own, other = feeds[0].block, feeds[1].block
        if name not in blocks and not (reports and options.mend):
            continue
        if name in finished:
            report = BlockRefit(**{**finished[name], "notes": tuple(finished[name]["notes"])})
        else:
            call = next(feeds[0].calls())
            if name in blocks:
                plan = plan_sites(own, other, blocks[name], call, options.inner)
            else:
                plan = plan_mending(own, other, call)
            report = _refit_block(name, Pair(plan, feeds, memory / 3), options)
            finished[name] = asdict(report)
            if keep is not None:
                keep.save(elastic, finished)
        if name in blocks:
            reports.append(report)
            done(report)
    return reports


def _refit_block(name: str, pair: Pair, options: Refit) -> BlockRefit:
    plan, own = pair.plan, pair.feeds[0].block
    saved = copy.deepcopy(own.state_dict())
    before: float | None = None
    for site in plan.sites:
        error = _refit_site(site, pair, options)
        before = error if before is None else before
    after = pair.error()
    if before is None:
        return BlockRefit(name, after, after, tuple(plan.notes))
    if not after <= before:  # not a number, too
        own.load_state_dict(saved)
        pair.feeds[0].forget()
        return BlockRefit(name, before, before, (*plan.notes, "the refit was no better: left as it was"))
    return BlockRefit(name, before, after, tuple(plan.notes))


def _refit_site(site: Site, pair: Pair, options: Refit) -> float:
    """Refit one convolution; returns the block's error before."""
    constant = site.norm is not None or site.bias is not None
    groups = site.groups
    outputs = site.pieces[0].conv.out_channels // groups
    device = site.pieces[0].conv.weight.device
    fit, held = (NormalEquations.empty(groups, site.features, constant, outputs, device) for _ in range(2))
    generator = torch.Generator().manual_seed(options.seed)
    wanted = max(options.least, options.samples * site.features)
    images = [len(batch) for batch in pair.feeds[0].images]
    error, begin = Error(), 0
    for (own, other), count in zip(pair.passes(site), images, strict=True):
        error.add(own["end"], other["end"])
        missing = _missing(site, own, other)  # (N, O, H, W)
        positions = missing.numel() // missing.shape[1]
        drawn = min(positions, math.ceil(wanted * count / sum(images)))
        chosen = torch.randperm(positions, generator=generator)[:drawn]
        photo = begin + chosen // (positions // count)
        chosen = chosen[(photo % HOLD_OUT == HOLD_OUT - 1).argsort(stable=True)].to(missing.device)  # held out last
        fitted = int((photo % HOLD_OUT < HOLD_OUT - 1).sum())
        begin += count
        features = [
            _features(piece, own[str(number)], missing.shape, chosen) for number, piece in enumerate(site.pieces)
        ]
        columns = torch.cat([part.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2) for part in features], 2)
        if constant:
            columns = F.pad(columns, (0, 1), value=1.0)  # (G, M, K + 1)
        targets = rows_of(missing, chosen).unflatten(1, (groups, -1)).transpose(0, 1)  # (G, M, O)
        fit.add(columns[:, :fitted], targets[:, :fitted])
        held.add(columns[:, fitted:], targets[:, fitted:])
    ridge = options.ridge
    if ridge is None:
        ridge = best_ridge(fit, held)
    _apply(site, fit.plus(held).solve(ridge).float(), constant)
    return error.value


def _missing(site: Site, own: Seen, other: Seen) -> Tensor:
    """(N, O, H, W): what should be added to the convolution's output."""
    if site.scale is not None:
        scale = torch.where(site.scale == 0, torch.inf, site.scale)  # an output that is not used stays
        return (other["end"] - own["end"]) / scale[:, None, None]
    target = other[site.name].permute(0, 3, 1, 2) if site.channels_last else other[site.name]
    target, output = target[:, site.target_channels], own["output"][:, site.channels]
    if site.pooling > 1:
        target = F.avg_pool2d(target, site.pooling, site.pooling, ceil_mode=True, count_include_pad=False)
    up = site.pieces[0].up if len(site.pieces) == 1 else None
    if up is not None:
        output = crop(up(output), target.shape[-2], target.shape[-1])
    return target - output


def _features(piece: Piece, x: Tensor, shape: torch.Size, chosen: Tensor) -> Tensor:
    """(M, kernel positions, channels): what the weights of a convolution multiply at the chosen positions."""
    columns = []
    for shifted in shifts(piece.conv, x):
        if piece.up is not None:
            shifted = crop(piece.up(shifted), shape[-2], shape[-1])
        columns.append(rows_of(shifted, chosen))
    return torch.stack(columns, 1)


def _apply(site: Site, change: Tensor, constant: bool) -> None:
    """Add the change, (G, features + constant, outputs of a group), to weights and to what takes up the constant."""
    if constant:
        offset = change[:, -1].flatten()  # (O,)
        change = change[:, :-1]
        if site.norm is not None:
            site.norm.running_mean -= offset.to(site.norm.running_mean)
        elif site.bias is not None:
            site.bias.data += offset.to(site.bias)
    begin = 0
    for piece in site.pieces:
        width = piece.conv.weight[0].numel()
        add_to_weight(piece.conv, change[:, begin : begin + width])
        begin += width
