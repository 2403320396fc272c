"""`elasticize`: make a network's eligible blocks elastic and keep its trained weights."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from elastic_cnn.nn import CannotDivide, ElasticSpec
from elastic_cnn.nn.trial import copy_module, copy_to_meta
from elastic_cnn.surgery.budget import match_budget
from elastic_cnn.surgery.candidates import Candidate, Candidates, Where, choose
from elastic_cnn.surgery.obstacles import elastic_parts
from elastic_cnn.surgery.replace import Holders, hooks_lifted
from elastic_cnn.surgery.report import BlockOutcome, Conversion, SurgeryReport
from elastic_cnn.surgery.rules import Rule
from elastic_cnn.surgery.specs import Spec, named_blocks, read_spec, spec_of, spec_stages
from elastic_cnn.surgery.verify import Verification

__all__ = ["convert_one", "elasticize"]


def elasticize(
    network: nn.Module,
    spec: Any = None,
    where: Where | None = None,
    *,
    stages: Collection[int] | None = None,
    convolutions: bool | None = None,
    everywhere: bool = False,
    match: str | None = None,
    example: Any = None,
    verify: bool = True,
    inplace: bool = False,
) -> nn.Module:
    """Make the eligible blocks of `network` elastic (paper, Equation 3): same parameters, fewer multiply-adds.

    A block is eligible by its place in the network, never by the size of a tensor: it keeps the resolution (the first
    block of each later stage does not, whatever its stride was set to by `output_stride`), and it is not in the last
    stage, unless nothing else can be (networks of one resolution). Weights are divided over the branches without loss.
    Blocks that a rule knows come first; then what no rule covers (decoders, necks, heads) is converted one convolution
    at a time, but for stems, small maps and what belongs to a family whose blocks the rules know. A network without a
    block that a rule knows is converted one convolution at a time altogether.

    network: any convolutional network.
    spec: how to divide; the paper's two scales, half each, by default. {stage: spec} gives each stage its own,
        {block name: spec} the blocks of these names theirs, and no other block is converted.
    where: `(name, block) -> bool`, narrows the eligible blocks.
    stages: numbers of the stages to convert, counted from 1; by default all but the last, or those that `spec` names.
    convolutions: True converts single convolutions even where a rule knows blocks, False never; None as said above.
    everywhere: True takes the last stage in by default, and blocks that change the resolution: not as the paper has it,
        but fewer multiply-adds (`convert` chooses among them what loses least).
    match: "macs" also chooses other depths, so that parameters and multiply-adds equal the base's within 2% (timm's
        ResNet and DenseNet families; see `match_budget`): new layers start untrained.
    example: what the network is called with: a tensor, a tuple of arguments, a dict of them by name, a list of images,
        or (channels, height, width). By default an image of the size and channels that its configuration and its first
        convolution tell. It is written on the network as `elastic_example` where it was given or found by trying.
    verify: compare the result at blend 0 with the original on the example, as far as one is known; blocks that differ
        are put back and reported. Two forward passes; False leaves it out.
    inplace: change `network` itself rather than a copy.

    Returns the network, with `elastic_report` (a `SurgeryReport`: what was converted, what was left and why) and
    `elastic_spec`. Raises `ValueError` where the network is elastic already, `stages` names a stage that it does not
    have, it does not run on the example, it cannot be copied, or no block could be converted; the message says why.
    """
    _require_network(network)
    spec = read_spec(spec, [name for name, _ in network.named_modules() if name])
    if match is not None:
        options = {"stages": stages, "convolutions": convolutions, "everywhere": everywhere, "example": example}
        return _match(network, match, spec, where, **options)
    named = named_blocks(spec)
    if stages is None and isinstance(spec, Mapping) and not named:
        stages = list(spec_stages(spec))
    if not inplace:
        network = copy_module(network)
    surgery = _Surgery(network, spec, where, stages, everywhere, Candidates(network, example), verify)
    report = surgery.perform(convolutions)
    if not report.blocks:
        raise ValueError(f"{type(network).__name__} {_nothing_there(network)}; its modules are left as they are")
    if unknown := sorted(named - {block.name for block in report.blocks}):
        raise ValueError(f"{type(network).__name__} has no block {', '.join(unknown)} to make elastic")
    if not report.converted:
        raise ValueError(f"no block of {type(network).__name__} could be made elastic: {report}")
    marked: Any = network
    marked.elastic_report, marked.elastic_spec = report, spec
    measured = surgery.candidates.measured
    if example is not None or (measured is not None and measured.guessed):
        marked.elastic_example = surgery.candidates.survey.example
    return network


def _require_network(network: Any) -> None:
    """`ValueError` or `TypeError`, with the remedy, for what is no network or one that surgery cannot change."""
    if isinstance(network, str):
        raise TypeError(
            f"elasticize takes a network (torch.nn.Module), got the name {network!r}: pass "
            f"timm.create_model({network!r}), or elastic_cnn.create_model({network!r})"
        )
    if not isinstance(network, nn.Module):
        raise TypeError(f"elasticize takes a network (torch.nn.Module), got {type(network).__name__}")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError("a scripted or traced network cannot be changed; elasticize the module it was made from")
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")


def _nothing_there(network: nn.Module) -> str:
    """Why a network has no candidate at all."""
    if elastic_parts(network):
        return "holds an elastic network: all that could be converted is elastic already"
    if any(p.dim() == 4 and min(p.shape[:2]) > 1 and max(p.shape[2:]) > 1 for p in network.parameters()):
        return "has no convolution layer (its kernels are used by functions, which surgery cannot replace)"
    return "has no block that a rule knows, nor a convolution"


def _match(network: nn.Module, match: str, spec: Spec, where: Where | None, **options: Any) -> nn.Module:
    if match != "macs":
        raise ValueError(f"match must be 'macs' or None, got {match!r}")
    matched: Any
    matched, found = match_budget(
        network, lambda base: elasticize(base, spec, where, **options, verify=False, inplace=True)
    )
    matched.elastic_match = found
    return matched


class _Surgery:
    """One conversion of one network, in place."""

    def __init__(
        self,
        network: nn.Module,
        spec: Spec,
        where: Where | None,
        stages: Collection[int] | None,
        everywhere: bool,
        candidates: Candidates,
        verify: bool,
    ):
        self.network = network
        self.spec = spec
        self.named = named_blocks(spec)
        self.narrowed = where is not None
        self.where = _only(self.named, where) if self.named else where
        self.stages = stages
        self.everywhere = everywhere
        self.candidates = candidates
        self.verification = Verification(network) if verify else None
        self.report = SurgeryReport()

    def perform(self, convolutions: bool | None) -> SurgeryReport:
        """Blocks by rules, then single layers, as `elasticize` says; then the comparison."""
        if not convolutions:
            blocks = self.candidates.blocks()
            beside = self.candidates.layers_beside(blocks) if blocks and convolutions is None else []
            self._convert(_in_network_order(self.network, [*blocks, *beside]), self.stages)
        if convolutions or (convolutions is None and not self.report.converted and not self.narrowed):
            single = self.candidates.layers()
            self._convert(single, self.stages)
            if not self.report.converted and self.stages is None:  # one resolution alone: all of it is "last"
                self._convert(single, {c.stage for c in single if c.stage is not None})
        if self.verification is not None and self.report.converted:
            self.verification.check(self.report, self.candidates)
        return self.report

    def _convert(self, candidates: list[Candidate], stages: Collection[int] | None) -> None:
        """Convert the candidates that their place allows; what an earlier attempt left stays in the report."""
        if not candidates:
            return
        if stages is None and self.named:  # blocks named one by one, wherever they stand
            stages = {c.stage for c in candidates if c.name in self.named and c.stage is not None} or None
        fresh = {candidate.name for candidate in candidates}
        self.report.blocks = [block for block in self.report.blocks if block.name not in fresh]
        chosen = choose(candidates, self.where, stages, self.everywhere).values()
        holders = Holders((candidate.block for candidate, reason in chosen if not reason), self.network)
        for candidate, given in chosen:
            reason = given
            if not reason:
                try:
                    self._convert_one(candidate, holders)
                except CannotDivide as obstacle:
                    reason = str(obstacle)
            kind = candidate.kind or candidate.rule.kind
            self.report.blocks.append(BlockOutcome(candidate.name, kind, reason, candidate.stage))

    def _convert_one(self, candidate: Candidate, holders: Holders) -> None:
        spec = spec_of(self.spec, candidate.name, candidate.stage)
        if self.verification is not None:
            self.verification.keep(candidate.name, candidate.block)
        self.report.conversions[candidate.name] = convert_one(holders, candidate.block, candidate.rule, spec)


def _only(names: Collection[str], where: Where | None) -> Where:
    """`where`, for these blocks alone."""
    return lambda name, block: name in names and (where is None or where(name, block))


def convert_one(holders: Holders, block: nn.Module, rule: Rule, spec: ElasticSpec) -> Conversion:
    """Make one block elastic wherever it is held; returns how. `CannotDivide` where it cannot be, or would gain
    parameters."""
    with hooks_lifted(block):
        conversion = Conversion(copy_to_meta(block), rule.convert, spec, rule.sections)
        try:
            elastic = rule.convert(block, spec)
        except (AttributeError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise CannotDivide(f"is not built as its family is ({type(error).__name__}: {str(error)[:120]})") from error
    gained = _size(elastic) - _size(block)
    if gained and "trained" not in (spec.downsample, spec.upsample):
        raise CannotDivide(
            f"{gained:+d} parameters: what has weights of its own (PReLU, a norm inside) would stand in each branch"
        )
    holders.replace(block, elastic)
    return conversion


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _in_network_order(network: nn.Module, candidates: list[Candidate]) -> list[Candidate]:
    order = {name: index for index, (name, _) in enumerate(network.named_modules())}
    return sorted(candidates, key=lambda candidate: order[candidate.name])
