"""`elasticize`: make a network's eligible blocks elastic and keep its trained weights."""

import copy
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from elastic_cnn.nn import CannotDivide, ElasticSpec
from elastic_cnn.surgery.budget import match_budget
from elastic_cnn.surgery.candidates import Candidate, Where, choose, find_blocks, find_convolutions
from elastic_cnn.surgery.report import BlockOutcome, Conversion, SurgeryReport

Spec = ElasticSpec | Mapping[int, ElasticSpec] | Mapping[str, ElasticSpec]


def elasticize(
    network: nn.Module,
    spec: Spec | None = None,
    where: Where | None = None,
    *,
    stages: Collection[int] | None = None,
    convolutions: bool | None = None,
    match: str | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Make the eligible blocks of `network` elastic (paper, Equation 3): same parameters, fewer multiply-adds.

    A block is eligible by its place in the network, never by the size of a tensor: it keeps the resolution (the first
    block of each later stage does not, whatever its stride was set to by `output_stride`), and it is not in the last
    stage, unless nothing else can be (networks of one resolution). Weights are divided over the branches without loss.
    A network without a block that a rule knows is converted one convolution at a time.

    network: any convolutional network.
    spec: how to divide; the paper's two scales, half each, by default. {stage: spec} gives each stage its own,
        {block name: spec} the blocks of these names theirs, and no other block is converted.
    where: `(name, block) -> bool`, narrows the eligible blocks.
    stages: numbers of the stages to convert, counted from 1; by default all but the last, or those that `spec` names.
    convolutions: True converts single convolutions even where a rule knows blocks, False never; None as said above.
    match: "macs" also chooses other depths, so that parameters and multiply-adds equal the base's within 2% (timm's
        ResNet and DenseNet families; see `match_budget`): new layers start untrained.
    inplace: change `network` itself rather than a copy.

    Returns the network, with `elastic_report` (a `SurgeryReport`: what was converted, what was left and why) and
    `elastic_spec`. Raises `ValueError` where the network is elastic already, `stages` names a stage that it does not
    have, or no block could be converted; the message says why.
    """
    spec = _read_spec(spec)
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")
    if match is not None:
        if match != "macs":
            raise ValueError(f"match must be 'macs' or None, got {match!r}")
        matched: Any
        matched, found = match_budget(
            network, lambda base: elasticize(base, spec, where, stages=stages, convolutions=convolutions, inplace=True)
        )
        matched.elastic_match = found
        return matched
    narrowed = where is not None
    named = {key for key in spec if isinstance(key, str)} if isinstance(spec, Mapping) else set()
    if named:
        where = _only(named, where)
    elif isinstance(spec, Mapping) and stages is None:
        stages = [key for key in spec if isinstance(key, int)]
    if not inplace:
        network = copy.deepcopy(network)
    report = SurgeryReport()
    if not convolutions:
        report = _convert_all(network, find_blocks(network), spec, where, stages)
    if convolutions or (convolutions is None and not report.converted and not narrowed):
        single = find_convolutions(network)
        report = _convert_all(network, single, spec, where, stages, report)
        if not report.converted and stages is None:  # one resolution alone: all that can be converted is "last"
            every = {candidate.stage for candidate in single if candidate.stage is not None}
            report = _convert_all(network, single, spec, where, every)
    if not report.blocks:
        raise ValueError(f"{type(network).__name__} has no block that a rule knows; its modules are left as they are")
    if unknown := sorted(named - {block.name for block in report.blocks}):
        raise ValueError(f"{type(network).__name__} has no block {', '.join(unknown)} to make elastic")
    if not report.converted:
        raise ValueError(f"no block of {type(network).__name__} could be made elastic: {report}")
    marked: Any = network
    marked.elastic_report, marked.elastic_spec = report, spec
    return network


def _read_spec(spec: Any) -> Spec:
    """The default for None; the spec that a dict of its fields, as network cards hold it, describes; else `spec`."""
    if spec is None:
        return ElasticSpec()
    fields = ElasticSpec.__dataclass_fields__
    return ElasticSpec.from_dict(spec) if isinstance(spec, dict) and spec and set(spec) <= set(fields) else spec


def _convert_all(
    network: nn.Module,
    candidates: list[Candidate],
    spec: Spec,
    where: Where | None,
    stages: Collection[int] | None,
    earlier: SurgeryReport | None = None,
) -> SurgeryReport:
    """Convert the candidates that their place allows, in place; what an earlier attempt left stays in the report."""
    if not candidates:
        return earlier or SurgeryReport()
    if stages is None and isinstance(spec, Mapping):  # blocks named one by one, wherever they stand
        stages = {c.stage for c in candidates if c.name in spec and c.stage is not None} or None
    chosen = choose(candidates, where, stages)
    report = earlier or SurgeryReport()
    for candidate, reason in chosen.values():
        name, block, rule = candidate.name, candidate.block, candidate.rule
        if not reason:
            conversion = Conversion(
                copy.deepcopy(block).to("meta"), rule.convert, _spec_of(spec, candidate), rule.sections
            )
            try:
                replace_module(network, block, rule.convert(block, conversion.spec))
                report.conversions[name] = conversion
            except CannotDivide as obstacle:
                reason = str(obstacle)
        report.blocks.append(BlockOutcome(name, rule.kind, reason))
    return report


def replace_module(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in the place of `old` under every name that it has, in the same training mode."""
    new.train(old.training)
    for parent in list(network.modules()):
        for child, module in list(parent._modules.items()):  # named_children() names a module only once
            if module is old:
                setattr(parent, child, new)


def _only(names: Collection[str], where: Where | None) -> Where:
    """`where`, for these blocks alone."""
    return lambda name, block: name in names and (where is None or where(name, block))


def _spec_of(spec: Spec, candidate: Candidate) -> ElasticSpec:
    """The spec for one block. `ValueError` where a mapping names none for it."""
    if isinstance(spec, ElasticSpec):
        return spec
    known: Mapping[Any, ElasticSpec] = spec
    for key in (candidate.name, candidate.stage):
        if key in known:
            return known[key]
    raise ValueError(f"no spec for {candidate.name} (stage {candidate.stage}); there are specs for {list(spec)}")


def describe_surgery(network: Any) -> dict[str, Any]:
    """What `elasticize` did to `network`, in JSON values: enough for `apply_surgery` to do it again."""
    spec, report = network.elastic_spec, network.elastic_report
    described = {str(k): v.to_dict() for k, v in spec.items()} if isinstance(spec, Mapping) else spec.to_dict()
    single = any(block.kind == "convolution" for block in report.blocks)
    return {"spec": described, "blocks": report.converted, "convolutions": single}


def apply_surgery(network: nn.Module, description: dict[str, Any]) -> nn.Module:
    """Make `network` elastic as described by `describe_surgery`, in place; `ValueError` where it does not fit."""
    try:
        blocks, fields, single = set(description["blocks"]), description["spec"], description.get("convolutions", False)
        by_stage = bool(fields) and all(str(key).isdigit() for key in fields)
        spec: Any = (
            {int(key) if by_stage else key: ElasticSpec.from_dict(value) for key, value in fields.items()}
            if by_stage or (bool(fields) and all(isinstance(value, dict) for value in fields.values()))
            else ElasticSpec.from_dict(fields)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a description of a surgery: {error!r}") from error
    candidates = find_convolutions(network) if single else find_blocks(network)
    stages = {c.stage for c in candidates if c.name in blocks and c.stage is not None}
    elastic: Any = elasticize(
        network, spec, lambda name, _: name in blocks, stages=stages or None, convolutions=single, inplace=True
    )
    if missing := sorted(blocks - set(elastic.elastic_report.converted)):
        raise ValueError(f"{type(network).__name__} has no block {', '.join(missing)} to make elastic")
    return elastic
