"""`convert`: make a trained network elastic so that it keeps what it learnt, on photos without labels.

Four steps: order (`order.py`), shares (`shares.py`), the exact division (`surgery.elasticize`), refit (`refit.py`).
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn.conversion.order import Errors, order_channels
from elastic_cnn.conversion.photos import Photos, collect
from elastic_cnn.conversion.probe import trace
from elastic_cnn.conversion.refit import BlockRefit, Refit, refit
from elastic_cnn.conversion.report import BlockConversion, ConversionReport
from elastic_cnn.conversion.shares import STEPS, choose_shares, sensitivities, specs_of
from elastic_cnn.data.transforms import Transform
from elastic_cnn.nn import ElasticSpec
from elastic_cnn.nn.compare import compare
from elastic_cnn.nn.example import Example, placement
from elastic_cnn.surgery import elasticize
from elastic_cnn.surgery.candidates import Where
from elastic_cnn.surgery.elasticize import Spec
from elastic_cnn.surgery.report import Conversion

ORDER_PHOTOS, SHARES_PHOTOS = 64, 48
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibration:
    """How `convert` learns from photos.

    photos: how many to take at most. order: put the channels of each block into order first. refit: how to refit the
    weights; None leaves them as they were. memory: bytes for the maps of photos, beyond which they are computed anew.
    seed: of what is drawn at random. transform: prepares the photos of a folder.
    """

    photos: int = 256
    order: bool = True
    refit: Refit | None = field(default_factory=Refit)
    memory: float = 4e9
    seed: int = 0
    transform: Transform | None = None


def convert(
    network: nn.Module,
    photos: Photos,
    spec: Spec | None = None,
    where: Where | None = None,
    *,
    stages: Collection[int] | None = None,
    convolutions: bool | None = None,
    budget: float | None = None,
    calibration: Calibration = Calibration(),
    progress: Progress | None = None,
) -> nn.Module:
    """An elastic network that answers as the trained `network` does, without labels and without training.

    In each block the channels that lose least at low resolution go there (exact: a permutation), the weights are
    divided (`elasticize`), and what reads the channels is refitted to the trained block's own output. The parameters
    are as many as the network's.

    photos: what the network is used on, or something like it (`conversion.photos.collect` says in which forms).
    spec, where, stages, convolutions: as for `elasticize`.
    budget: multiply-adds over the base's, in 0..1: which blocks, and how much of each, is chosen so that the answers
        change least; `spec` then says the scales, in all blocks the same.
    progress: called with (what is being done, steps done, steps in all).

    Returns a copy in eval mode, in the precision and on the device of `network`, with `elastic_report`, `elastic_spec`
    and `conversion_report` (a `ConversionReport`). Raises `ValueError` as `elasticize` does, for photos that cannot be
    used, a budget that cannot be met, and where putting channels in order would change the network.
    """
    began = time.perf_counter()
    tell = progress or (lambda what, done, total: None)
    device, dtype = placement(network)
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")
    if budget is not None and (not 0 < budget < 1 or isinstance(spec, Mapping)):
        raise ValueError(f"budget must lie between 0 and 1, with one spec for all blocks; got {budget} and {spec}")
    images = [
        batch.to(device)
        for batch in collect(photos, calibration.photos, calibration.transform, network, calibration.seed)
    ]
    trained = copy.deepcopy(network).float().eval().to(memory_format=torch.channels_last)
    options: dict[str, Any] = {"stages": stages, "convolutions": convolutions}
    elastic: Any = elasticize(trained, spec, where, **options)
    blocks: Mapping[str, Conversion] = elastic.elastic_report.conversions
    if calibration.order or budget is not None:
        errors = _order(trained, blocks, images, calibration.order, tell)
        elastic = elasticize(trained, spec, where, **options)
    if budget is not None:
        named = _choose(elastic, trained, blocks, errors, images, budget, tell)
        elastic = elasticize(trained, named, convolutions=convolutions)
        blocks = elastic.elastic_report.conversions
    elastic.eval()
    refits = _refit(elastic, trained, blocks, images, calibration, tell) if calibration.refit else []
    elastic.conversion_report = _report(trained, elastic, images, refits, calibration, time.perf_counter() - began)
    return elastic.to(dtype=dtype, memory_format=torch.contiguous_format)


def _order(
    trained: nn.Module, blocks: Mapping[str, Conversion], images: Sequence[Tensor], move: bool, tell: Progress
) -> Errors:
    """Put the channels of the trained network into order, in place. `ValueError` where that changes its outputs."""
    tell("order", 0, 1)
    before = copy.deepcopy(trained)
    errors = order_channels(trained, blocks, _first(images, ORDER_PHOTOS), move=move)
    if not (difference := compare(trained, before, Example((images[0][:1],)))):
        raise ValueError(
            f"the channels of {type(trained).__name__} cannot be put in order without changing what it computes "
            f"({difference.problem}); leave that out: Calibration(order=False)"
        )
    tell("order", 1, 1)
    return errors


def _choose(
    elastic: Any,
    trained: nn.Module,
    blocks: Mapping[str, Conversion],
    errors: Errors,
    images: Sequence[Tensor],
    budget: float,
    tell: Progress,
) -> dict[str, ElasticSpec]:
    """The specs of the blocks to convert; `elastic` has all of them converted by one spec."""
    tell("shares", 0, 1)
    spec: ElasticSpec = elastic.elastic_spec
    elastic.eval()
    high = spec.shares[0]
    base, whole = macs_of_modules(trained, images[0]), macs_of_modules(elastic, images[0])
    saved = {
        name: {step: (base[name] - whole[name]) / base[""] * (1 - step) / (1 - high) for step in STEPS}
        for name in blocks
    }
    measured = sensitivities(elastic, list(blocks), _first(images, SHARES_PHOTOS))
    choices = choose_shares(measured, errors, saved, budget, high)
    tell("shares", 1, 1)
    return specs_of(choices, spec)


def _refit(
    elastic: nn.Module,
    trained: nn.Module,
    blocks: Mapping[str, Conversion],
    images: Sequence[Tensor],
    calibration: Calibration,
    tell: Progress,
) -> list[BlockRefit]:
    assert calibration.refit is not None
    done: list[BlockRefit] = []

    def note(block: BlockRefit) -> None:
        done.append(block)
        tell("refit", len(done), len(blocks))

    tell("refit", 0, len(blocks))
    candidates = [block.name for block in elastic.elastic_report.blocks]  # type: ignore[union-attr]
    flow = trace(trained, candidates, images[0][:1])
    options = replace(calibration.refit, seed=calibration.seed)
    return refit(elastic, trained, images, blocks, flow, options, calibration.memory, note)


def _first(images: Sequence[Tensor], count: int) -> list[Tensor]:
    """Batches that hold the first `count` images."""
    kept, left = [], count
    for batch in images:
        if left > 0:
            kept.append(batch[:left])
            left -= len(batch)
    return kept


def macs_of_modules(network: nn.Module, images: Tensor) -> dict[str, int]:
    """{name: multiply-adds of that module for one image}, "" the network's."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images[:1])
    top = type(network).__name__
    counts = {name: sum(by.values()) // 2 for name, by in counter.get_flop_counts().items()}
    found = {name.removeprefix(f"{top}.").removeprefix(top): macs for name, macs in counts.items() if name != "Global"}
    return {name: found.get(name, 0) for name, _ in network.named_modules()} | {"": counts["Global"]}


def _report(
    trained: nn.Module,
    elastic: Any,
    images: Sequence[Tensor],
    refits: Sequence[BlockRefit],
    calibration: Calibration,
    seconds: float,
) -> ConversionReport:
    before, after = macs_of_modules(trained, images[0]), macs_of_modules(elastic, images[0])
    found = {block.name: block for block in refits}
    blocks = []
    for outcome in elastic.elastic_report.blocks:
        if outcome.converted:
            name, spec = outcome.name, elastic.elastic_report.conversions[outcome.name].spec
            of = found.get(name)
            results = (of.before, of.after, of.notes) if of else (None, None, ())
            blocks.append(
                BlockConversion(
                    name, outcome.kind, spec.scales, spec.shares, before.get(name, 0), after.get(name, 0), *results
                )
            )
    size = (int(images[0].shape[-2]), int(images[0].shape[-1]))
    ratio = after[""] / before[""] if before[""] else math.nan
    count = sum(len(batch) for batch in images)
    return ConversionReport(
        tuple(blocks), ratio, calibration.order, bool(calibration.refit), count, size, calibration.seed, seconds
    )
