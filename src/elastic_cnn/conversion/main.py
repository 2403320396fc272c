"""`convert`: make a trained network elastic so that it keeps what it learnt, on photos without labels.

Four steps: order (`order.py`), shares (`shares.py`), the exact division (`surgery.elasticize`), refit (`refit.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from elastic_cnn.conversion.photos import Photos, batches, collect
from elastic_cnn.conversion.refit import Refit
from elastic_cnn.conversion.search import within_time, within_tolerance
from elastic_cnn.conversion.times import FORMS
from elastic_cnn.conversion.work import Progress, Work
from elastic_cnn.data.transforms import Transform
from elastic_cnn.nn import ElasticSpec, in_precision
from elastic_cnn.nn.example import placement
from elastic_cnn.surgery.candidates import Where
from elastic_cnn.surgery.specs import Spec

SCALES = (  # what each block may choose from
    ElasticSpec((1, 2), (0.5, 0.5)),
    ElasticSpec((1, 4), (0.5, 0.5)),
    ElasticSpec((1, 2, 4), (0.5, 0.25, 0.25)),
)


@dataclass(frozen=True)
class Calibration:
    """How `convert` learns from photos.

    photos: how many to take at most. order: put the channels of each block into order first. refit: how to refit the
    weights; None leaves them as they were. memory: bytes for the maps of photos, beyond which they are computed anew.
    seed: of what is drawn at random. transform: prepares the photos of a folder. task: `classification`, `multilabel`
    or `segmentation`, which says what an answer is. keep: a folder for blocks that are finished: where the conversion
    is stopped, the same call goes on from them; they are removed at the end."""

    photos: int = 256
    order: bool = True
    refit: Refit | None = field(default_factory=Refit)
    memory: float = 4e9
    seed: int = 0
    transform: Transform | None = None
    task: str = "classification"
    keep: str | Path | None = None

    def __post_init__(self) -> None:
        if self.photos < 1:
            raise ValueError(f"the number of photos to calibrate on must be at least 1, got {self.photos}")


def convert(
    network: nn.Module,
    photos: Photos,
    spec: Spec | Sequence[ElasticSpec] | None = None,
    where: Where | None = None,
    *,
    stages: Collection[int] | None = None,
    convolutions: bool | None = None,
    everywhere: bool | None = None,
    budget: float | None = None,
    time: float | None = None,
    tolerance: float | None = None,
    form: str = "native",
    calibration: Calibration = Calibration(),
    progress: Progress | None = None,
) -> nn.Module:
    """An elastic network that answers as the trained `network` does, without labels and without training.

    In each block the channels that lose least at low resolution go there (exact: a permutation), the weights are
    divided (`elasticize`), and what reads the channels is refitted to the trained block's own output. The parameters
    are as many as the network's.

    photos: what the network is used on, or something like it (`conversion.photos.collect` says in which forms).
    spec, where, stages, convolutions, everywhere: as for `elasticize`; `everywhere` is True by default where an aim is
        given and `stages` are not, so that also blocks of the last stage and those that change the resolution are
        chosen from.
    budget, time, tolerance: at most one of them, with one spec for all blocks, which then says the scales, or several
        (`SCALES` are the usual ones), of which each block takes the one that pays most; which blocks are converted, and
        how much of each, is chosen so that the answers change least. budget: multiply-adds over the
        base's, in 0..1. time: measured seconds over the base's, in the form `form`. tolerance: the part of the answers
        on photos held out that may change; the fewest multiply-adds within it.
    form: how the network will be deployed, a key of `conversion.times.FORMS`.
    progress: called with (what is being done, steps done, steps in all).

    Returns a copy in eval mode, in the precision and on the device of `network`, with `elastic_report`, `elastic_spec`
    and `conversion_report` (a `ConversionReport`). Raises `ValueError` as `elasticize` does, for photos that cannot be
    used, a budget that cannot be met, and where putting channels in order would change the network.
    """
    began = perf_counter()
    device, dtype = placement(network)
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")
    _check(spec, budget, time, tolerance, form)
    if everywhere is None:
        everywhere = stages is None and (budget, time, tolerance) != (None, None, None)
    wanted = calibration.photos * (1 if tolerance is None else 2)
    found = collect(photos, wanted, calibration.transform, network, calibration.seed)
    if tolerance is not None and len(found) < 2:
        raise ValueError("a tolerance needs photos to hold out: give more than one")
    parts = found.to(device).split(len(found) if tolerance is None else -(-len(found) // 2))
    work = Work(
        network,
        batches(parts[0]),
        list(spec) if isinstance(spec, Sequence) else [spec],
        where,
        {"stages": stages, "convolutions": convolutions, "everywhere": everywhere},
        calibration.order,
        calibration.refit,
        calibration.memory,
        calibration.seed,
        calibration.task,
        calibration.keep,
        progress or (lambda what, done, total: None),
    )
    if budget is not None:
        elastic = work.build(work.choose(budget))
    elif time is not None:
        elastic = within_time(work, time, form)
    elif tolerance is not None:
        elastic = within_tolerance(work, tolerance, batches(parts[1]), calibration.task)
    else:
        elastic = work.build(None)
    for kept in work.kept:
        kept.remove()
    elastic.conversion_report = work.report(elastic, perf_counter() - began)
    return in_precision(elastic, dtype).to(memory_format=torch.contiguous_format)


def _check(
    spec: Spec | Sequence[ElasticSpec] | None,
    budget: float | None,
    time: float | None,
    tolerance: float | None,
    form: str,
) -> None:
    """`ValueError` for aims that exclude each other or cannot be."""
    aims = {"budget": budget, "time": time, "tolerance": tolerance}
    given = {name: value for name, value in aims.items() if value is not None}
    if isinstance(spec, Sequence):
        if not spec or not all(isinstance(each, ElasticSpec) for each in spec):
            raise ValueError(f"several specs to choose from are a list of ElasticSpec, got {spec!r:.80}")
        if len(spec) > 1 and not given:
            raise ValueError("several specs are chosen from with an aim: give budget, time or tolerance")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other")
    for name, value in given.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        if isinstance(spec, Mapping):
            raise ValueError(f"{name} chooses the shares of every block: give one spec for all, not {list(spec)}")
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose from {', '.join(FORMS)}")
