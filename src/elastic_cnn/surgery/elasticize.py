"""`elasticize`: make a network's eligible blocks elastic and keep its trained weights."""

import copy
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from elastic_cnn.nn.branches import ElasticSpec
from elastic_cnn.nn.split import CannotDivide
from elastic_cnn.surgery.report import BlockOutcome, SurgeryReport
from elastic_cnn.surgery.rules import Rule, find_rule

Where = Callable[[str, nn.Module], bool]


def elasticize(
    network: nn.Module,
    spec: ElasticSpec | None = None,
    where: Where | None = None,
    *,
    stages: Collection[int] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Make the eligible blocks of `network` elastic (paper, Equation 3): same parameters, fewer multiply-adds.

    A block is eligible by its place in the network, never by the size of a tensor: it keeps the resolution (the first
    block of each later stage does not, whatever its stride was set to by `output_stride`), and it is not in the last
    stage. Weights are divided over the branches without loss.

    network: timm's or torchvision's ResNet family.
    spec: how to divide; the paper's two scales, half each, by default.
    where: `(name, block) -> bool`, narrows the eligible blocks.
    stages: numbers of the stages to convert, counted from 1; all but the last by default.
    inplace: change `network` itself rather than a copy.

    Returns the network, with `elastic_report` (a `SurgeryReport`: what was converted, what was left and why) and
    `elastic_spec`. Raises `ValueError` where the network is elastic already, holds no known block, `stages` names a
    stage that it does not have, or no block could be converted; the message says why.
    """
    spec = spec or ElasticSpec()
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")
    candidates = [(name, module, rule) for name, module in network.named_modules() if (rule := find_rule(module))]
    if not candidates:
        raise ValueError(f"{type(network).__name__} has no block that a rule knows; its modules are left as they are")
    outcomes, chosen = _choose(candidates, where, stages)
    if not inplace:
        network = copy.deepcopy(network)
    for name, rule in chosen.items():
        block = network.get_submodule(name)
        try:
            elastic = rule.convert(block, spec)
        except CannotDivide as obstacle:
            outcomes[name] = BlockOutcome(name, rule.kind, str(obstacle))
            continue
        elastic.train(block.training)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, elastic)
    report = SurgeryReport(list(outcomes.values()))
    if not report.converted:
        raise ValueError(f"no block could be made elastic. {report}")
    marked: Any = network
    marked.elastic_report, marked.elastic_spec = report, spec
    return network


def _choose(
    candidates: list[tuple[str, nn.Module, Rule]], where: Where | None, stages: Collection[int] | None
) -> tuple[dict[str, BlockOutcome], dict[str, Rule]]:
    """Decide by place: outcomes of all candidates (as if conversion succeeds), and {name: rule} of those to convert."""
    numbers = {name: rule.stage(name) for name, _, rule in candidates}
    known = sorted({number for number in numbers.values() if number is not None})
    if stages is not None and (unknown := sorted(set(stages) - set(known))):
        raise ValueError(f"no stage {unknown}; the network has the stages {known}")
    wanted = set(known[:-1] if stages is None else stages)
    outcomes: dict[str, BlockOutcome] = {}
    chosen: dict[str, Rule] = {}
    seen: set[int | None] = set()
    for name, block, rule in candidates:
        number = numbers[name]
        opens_stage = number not in seen and number != known[0]
        seen.add(number)
        if number is None:
            reason = "not part of a stage"
        elif number not in wanted:
            reason = "in the last stage" if number == known[-1] else "in a stage that was not asked for"
        elif opens_stage or _stride(block) > 1:
            reason = "changes the resolution"
        elif where is not None and not where(name, block):
            reason = "excluded by where"
        else:
            reason = ""
            chosen[name] = rule
        outcomes[name] = BlockOutcome(name, rule.kind, reason)
    return outcomes, chosen


def _stride(block: nn.Module) -> int:
    """The largest stride of any convolution in the block."""
    return max((max(m.stride) for m in block.modules() if isinstance(m, nn.Conv2d)), default=1)


def describe_surgery(network: Any) -> dict[str, Any]:
    """What `elasticize` did to `network`, in JSON values: enough for `apply_surgery` to do it again."""
    return {"spec": network.elastic_spec.to_dict(), "blocks": network.elastic_report.converted}


def apply_surgery(network: nn.Module, description: dict[str, Any]) -> nn.Module:
    """Make `network` elastic as described by `describe_surgery`, in place; `ValueError` where it does not fit."""
    blocks = set(description["blocks"])
    spec = ElasticSpec.from_dict(description["spec"])
    found = [(name, rule) for name, module in network.named_modules() if (rule := find_rule(module))]
    stages = {number for name, rule in found if name in blocks and (number := rule.stage(name)) is not None}
    elastic: Any = elasticize(network, spec, lambda name, _: name in blocks, stages=stages, inplace=True)
    if missing := sorted(blocks - set(elastic.elastic_report.converted)):
        raise ValueError(f"{type(network).__name__} has no block {', '.join(missing)} to make elastic")
    return elastic
