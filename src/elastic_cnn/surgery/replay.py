"""A surgery in JSON values, for network cards, and the same surgery done again on a network of the same structure."""

import contextlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from elastic_cnn.nn import CannotDivide
from elastic_cnn.nn.example import Example, recorded_example
from elastic_cnn.surgery.candidates import Candidates
from elastic_cnn.surgery.elasticize import convert_one
from elastic_cnn.surgery.replace import Holders
from elastic_cnn.surgery.report import LAYER_KINDS, BlockOutcome, SurgeryReport
from elastic_cnn.surgery.rules import Rule, find_rule, find_single_rule
from elastic_cnn.surgery.specs import Spec, describe_spec, named_blocks, read_spec, spec_of, spec_stages


def describe_surgery(network: Any) -> dict[str, Any]:
    """What `elasticize` did to `network`, in JSON values: enough for `apply_surgery` to do it again.

    spec, by: how it is divided, `by` "block" where it names them; blocks: names of what was converted; convolutions:
    whether single layers are among them; stages: those of the blocks; example: what the network is called with, where
    it takes something else than it tells of itself; refitted: where `convert` changed weights.
    """
    report: SurgeryReport = network.elastic_report
    kinds = {block.kind for block in report.blocks if block.converted}
    description = {
        "spec": describe_spec(network.elastic_spec),
        "blocks": report.converted,
        "convolutions": bool(kinds & LAYER_KINDS),
        "stages": report.stages,
    }
    if named_blocks(network.elastic_spec):
        description["by"] = "block"
    if report.refitted:
        description["refitted"] = True
    if (example := recorded_example(network)) is not None:
        with contextlib.suppress(ValueError):  # an argument that JSON cannot hold: the surgery needs it not
            description["example"] = example.describe()
    return description


def apply_surgery(network: nn.Module, description: dict[str, Any]) -> nn.Module:
    """Make `network` elastic as described by `describe_surgery`, in place; `ValueError` where it does not fit.

    Blocks are found by their names: the network need not run. Descriptions without stages, of earlier versions, are
    completed by measuring where the spec names stages.
    """
    names, spec, stages, example = _read(description)
    marked: Any = network
    if getattr(network, "elastic_report", None) is not None:
        raise ValueError("the network is elastic already; start from its base network")
    if example is not None:
        marked.elastic_example = example
    modules = dict(network.named_modules())
    rules: dict[str, Rule] = {}
    for name in names:
        if (rule := _rule(modules.get(name))) is not None:
            rules[name] = rule
    if missing := sorted(set(names) - set(rules)):
        raise ValueError(f"{type(network).__name__} has no block {', '.join(missing)} to make elastic")
    if not stages:
        stages = _find_stages(network, names, required=bool(spec_stages(spec)))
    report = SurgeryReport(note="done again from its description", refitted=bool(description.get("refitted")))
    holders = Holders((modules[name] for name in names), network)
    for name in names:
        try:
            conversion = convert_one(holders, modules[name], rules[name], spec_of(spec, name, stages.get(name)))
        except CannotDivide as obstacle:
            raise ValueError(f"{type(network).__name__} has no block {name} to make elastic: {obstacle}") from obstacle
        report.conversions[name] = conversion
        report.blocks.append(BlockOutcome(name, rules[name].kind, stage=stages.get(name)))
    marked.elastic_report, marked.elastic_spec = report, spec
    return network


def _read(description: Any) -> tuple[list[str], Spec, dict[str, int], Example | None]:
    """Names of blocks, spec, stages and example. `ValueError` where it is not a description."""
    try:
        names, fields = list(description["blocks"]), description["spec"]
        stages, example = description.get("stages", {}), description.get("example")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a description of a surgery: {error!r}") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"not a description of a surgery: its blocks are {names!r:.80}")
    if not isinstance(stages, Mapping) or not all(type(stage) is int for stage in stages.values()):
        raise ValueError(f"not a description of a surgery: its stages are {stages!r:.80}")
    if fields is None:
        raise ValueError("not a description of a surgery: it has no spec")
    return (
        list(dict.fromkeys(names)),
        read_spec(fields, names if description.get("by") == "block" else ()),
        dict(stages),
        None if example is None else Example.from_description(example),
    )


def _rule(module: nn.Module | None) -> Rule | None:
    return None if module is None else find_rule(module) or find_single_rule(module)


def _find_stages(network: nn.Module, names: list[str], required: bool) -> dict[str, int]:
    """The stages of the named blocks; nothing where the network does not run and they are not `required`."""
    candidates = Candidates(network)
    single = all(find_rule(network.get_submodule(name)) is None for name in names)
    try:
        found = candidates.layers() if single else candidates.blocks()
    except ValueError:
        if required:
            raise
        return {}
    return {candidate.name: candidate.stage for candidate in found if candidate.stage is not None}
