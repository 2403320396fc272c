"""One conversion at work: what is known of the network after the first steps, from which several can be built."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from elastic_cnn.conversion.answers import require_finite_answers
from elastic_cnn.conversion.influence import influences
from elastic_cnn.conversion.keep import Keep
from elastic_cnn.conversion.order import order_channels
from elastic_cnn.conversion.probe import trace
from elastic_cnn.conversion.refit import BlockRefit, Refit, refit
from elastic_cnn.conversion.report import BlockConversion, ConversionReport
from elastic_cnn.conversion.shares import STEPS, Alternative, Costs, after_mending, choose_shares
from elastic_cnn.nn import ElasticSpec, channels_last
from elastic_cnn.nn.compare import compare
from elastic_cnn.nn.example import Example
from elastic_cnn.surgery import elasticize
from elastic_cnn.surgery.candidates import Where
from elastic_cnn.surgery.report import Conversion
from elastic_cnn.surgery.specs import Spec

ORDER_PHOTOS, SHARES_PHOTOS = 64, 48
Progress = Callable[[str, int, int], None]
Specs = Mapping[str, ElasticSpec]


class Work:
    """trained: a copy of the network, its channels in order. elastic: that, with every eligible block made elastic by
    the first of the specs asked for, and nothing refitted. blocks: how."""

    def __init__(
        self,
        network: nn.Module,
        images: Sequence[Tensor],
        specs: Sequence[Spec | None],
        where: Where | None,
        options: dict[str, Any],
        order: bool,
        refit: Refit | None,
        memory: float,
        seed: int,
        task: str,
        keep: str | Path | None,
        tell: Progress,
    ) -> None:
        self.images, self.options, self.ordered, self.refit_options = images, options, order, refit
        self.memory, self.seed, self.task, self.tell = memory, seed, task, tell
        self.folder = keep
        self.kept: list[Keep] = []
        self.trained = channels_last(copy.deepcopy(network).float().eval())
        require_finite_answers(self.trained, images[0])
        elastic: Any = elasticize(self.trained, specs[0], where, **options)
        self.blocks: Mapping[str, Conversion] = elastic.elastic_report.conversions
        tell("order", 0, 1)
        before = copy.deepcopy(self.trained)
        self.errors = order_channels(self.trained, self.blocks, first(images, ORDER_PHOTOS), move=order)
        if not (difference := compare(self.trained, before, Example((images[0][:1],)))):
            raise ValueError(
                f"the channels of {type(network).__name__} cannot be put in order without changing what it computes "
                f"({difference.problem}); leave that out: Calibration(order=False)"
            )
        self.specs: Sequence[Any] = [elastic.elastic_spec, *specs[1:]]
        self.elastic = self.divided({name: how.spec for name, how in self.blocks.items()})
        self.macs_before = macs_of_modules(self.trained, images[0])
        self._influence: dict[ElasticSpec, Mapping[str, float]] = {}
        self._divisions: dict[ElasticSpec, Any] = {}
        self._saved: dict[ElasticSpec, Costs] = {}
        tell("order", 1, 1)

    def division(self, spec: ElasticSpec) -> Any:
        """As `elastic`, by another of the specs."""
        if spec == self.specs[0]:
            return self.elastic
        if spec not in self._divisions:
            self._divisions[spec] = self.divided(dict.fromkeys(self.blocks, spec))
        return self._divisions[spec]

    def saved_macs(self, spec: ElasticSpec) -> Costs:
        """{block: {part at full resolution: multiply-adds saved, of the network's}}."""
        if spec not in self._saved:
            after = macs_of_modules(self.division(spec), self.images[0])
            self._saved[spec] = self.grown(spec, self.macs_before, after, self.macs_before[""])
        return self._saved[spec]

    def grown(self, spec: ElasticSpec, before: Mapping[str, float], after: Mapping[str, float], whole: float) -> Costs:
        """What each block saves at all steps, from its costs at full resolution and at the spec's: savings grow with
        the part that runs low, in a straight line."""
        high = spec.shares[0]
        return {
            name: {step: (before[name] - after[name]) / whole * (1 - step) / (1 - high) for step in STEPS}
            for name in self.division(spec).elastic_report.conversions
        }

    def influence(self, spec: ElasticSpec) -> Mapping[str, float]:
        """{block: what its conversion by the spec does to the answers, less what later blocks mend of it}."""
        if spec not in self._influence:
            division, at = self.division(spec), self.specs.index(spec)
            self.tell("shares", at, len(self.specs))
            photos = first(self.images, SHARES_PHOTOS)
            found = influences(division, list(division.elastic_report.conversions), photos, self.task, self.seed)
            self._influence[spec] = found if self.refit_options is None else after_mending(found)
            self.tell("shares", at + 1, len(self.specs))
        return self._influence[spec]

    def choose(self, budget: float, saved: Mapping[ElasticSpec, Costs] | None = None) -> Specs:
        """How to divide which blocks so that the cost is `budget` of the base's; `saved` of it by default in
        multiply-adds. `ValueError` where it cannot be met."""
        saved = saved or {spec: self.saved_macs(spec) for spec in self.specs}
        alternatives = [Alternative(spec, self.influence(spec), saved[spec]) for spec in self.specs]
        chosen = choose_shares(alternatives, self.errors, budget)
        return {name: choice.spec for name, choice in chosen.items() if choice.spec is not None}

    def divided(self, specs: Specs | None) -> Any:
        """The elastic network by these specs (None: the spec asked for), not refitted."""
        if specs is None:
            return copy.deepcopy(self.elastic)
        options = {name: self.options[name] for name in ("convolutions", "everywhere")}
        return elasticize(self.trained, specs, **options, verify=False).eval()

    def build(self, specs: Specs | None) -> Any:
        """The same, refitted."""
        elastic = self.divided(specs)
        blocks: Mapping[str, Conversion] = elastic.elastic_report.conversions
        elastic.refits = []
        if self.refit_options is None:
            return elastic

        def note(block: BlockRefit) -> None:
            elastic.refits.append(block)
            self.tell("refit", len(elastic.refits), len(blocks))

        self.tell("refit", 0, len(blocks))
        flow = trace(self.trained, [block.name for block in elastic.elastic_report.blocks], self.images[0][:1])
        options = replace(self.refit_options, seed=self.seed)
        keep = None
        if self.folder is not None:
            what = repr((sorted((name, how.spec) for name, how in blocks.items()), options))
            keep = Keep(self.folder, self.trained, self.images, what)
            self.kept.append(keep)
        refit(elastic, self.trained, self.images, blocks, flow, options, self.memory, note, keep)
        elastic.elastic_report.refitted = True
        return elastic

    def report(self, elastic: Any, seconds: float) -> ConversionReport:
        """What was done to each block of a network that `build` made."""
        after = macs_of_modules(elastic, self.images[0])
        refits = {block.name: block for block in elastic.refits}
        del elastic.refits
        blocks = []
        for outcome in elastic.elastic_report.blocks:
            if outcome.converted:
                name, spec = outcome.name, elastic.elastic_report.conversions[outcome.name].spec
                found = refits.get(name)
                errors = (found.before, found.after, found.notes) if found else (None, None, ())
                macs = self.macs_before[name], after[name]
                blocks.append(BlockConversion(name, outcome.kind, spec.scales, spec.shares, *macs, *errors))
        whole = self.macs_before[""]
        return ConversionReport(
            tuple(blocks),
            after[""] / whole if whole else math.nan,
            self.ordered,
            self.refit_options is not None,
            sum(len(batch) for batch in self.images),
            (int(self.images[0].shape[-2]), int(self.images[0].shape[-1])),
            self.seed,
            seconds,
            elastic.__dict__.pop("time_ratio", None),
            elastic.__dict__.pop("changed", None),
        )


def first(images: Sequence[Tensor], count: int) -> list[Tensor]:
    """Batches that hold the first `count` images."""
    kept, left = [], count
    for batch in images:
        if left > 0:
            kept.append(batch[:left])
            left -= len(batch)
    return kept


def macs_of_modules(network: nn.Module, images: Tensor) -> dict[str, int]:
    """{name: multiply-adds of that module for one image}, "" the network's. `ValueError` where torch cannot count."""
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            network(images[:1])
    except RuntimeError as error:
        if "autograd.grad()" not in str(error):
            raise
        raise ValueError(
            f"{type(network).__name__} takes a gradient inside forward (torch.autograd.grad), where torch cannot count "
            "the multiply-adds of its modules, by which blocks are chosen: make it elastic with elasticize"
        ) from error
    top = type(network).__name__
    counts = {name: sum(by.values()) // 2 for name, by in counter.get_flop_counts().items()}
    found = {name.removeprefix(f"{top}."): macs for name, macs in counts.items()}
    return {name: found.get(name, 0) for name, _ in network.named_modules()} | {"": counts.get("Global", 0)}
