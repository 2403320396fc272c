"""Which blocks of a network may become elastic, decided by their place in it.

A block is eligible when it keeps its resolution and is not in the last stage, the one of the lowest resolution.
"""

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from torch import nn

from elastic_cnn.surgery.places import measure_places
from elastic_cnn.surgery.rules import FALLBACK, Rule, find_rule

Where = Callable[[str, nn.Module], bool]

CHANGES_RESOLUTION = "changes the resolution"


@dataclass(frozen=True)
class Candidate:
    """A block that a rule knows: the number of its stage, counted from 1, and what speaks against converting it."""

    name: str
    block: nn.Module
    rule: Rule
    stage: int | None
    obstacle: str = ""


def find_blocks(network: nn.Module) -> list[Candidate]:
    """The blocks that a rule knows, in network order; blocks inside another such block are left out."""
    found: list[tuple[str, nn.Module, Rule]] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _, _ in found)
        if name and not inside and (rule := find_rule(module)):
            found.append((name, module, rule))
    if all(rule.stage(name) is not None for name, _, rule in found):
        return _staged_by_name(found)
    return _staged_by_resolution(network, found)


def find_convolutions(network: nn.Module) -> list[Candidate]:
    """Every convolution of a network, in network order, for networks without a block that a rule knows."""
    found: list[tuple[str, nn.Module, Rule]] = [
        (name, m, FALLBACK) for name, m in network.named_modules() if name and isinstance(m, nn.Conv2d)
    ]
    if not found:
        return []
    read = _weights_read_by_parents(network)
    return [
        replace(candidate, obstacle="its weight is read by the module around it")
        if candidate.name in read
        else candidate
        for candidate in _staged_by_resolution(network, found)
    ]


def _weights_read_by_parents(network: nn.Module) -> set[str]:
    """Names of children whose `weight` appears in their parent's `forward`, so that they must keep having one."""
    names = set()
    for name, parent in network.named_modules():
        try:
            source = inspect.getsource(type(parent).forward)
        except (OSError, TypeError):  # no source at hand: built in, or made at run time
            continue
        names |= {f"{name}.{child}".lstrip(".") for child in re.findall(r"self\.(\w+)\.(?:weight|bias)\b", source)}
    return names


def _staged_by_name(found: list[tuple[str, nn.Module, Rule]]) -> list[Candidate]:
    """Stages as the blocks' names number them."""
    candidates: list[Candidate] = []
    seen: set[int | None] = set()
    for name, block, rule in found:
        stage = rule.stage(name)
        opens = rule.first_block_strides and bool(seen) and stage not in seen
        seen.add(stage)
        candidates.append(
            Candidate(name, block, rule, stage, CHANGES_RESOLUTION if opens or _stride(block) > 1 else "")
        )
    return candidates


def _staged_by_resolution(network: nn.Module, found: list[tuple[str, nn.Module, Rule]]) -> list[Candidate]:
    """A stage for each resolution at which blocks work, measured at the network's own input size."""
    blocks = {id(block) for _, block, _ in found}
    names = {name for name, module in network.named_modules() if id(module) in blocks}
    types = {type(block) for _, block, _ in found}
    measured, _ = measure_places(network, lambda module: type(module) in types)
    places = {name: place for name, place in measured.items() if name in names}
    areas = {place.output[0] * place.output[1] for place in places.values() if place.output != (1, 1)}
    stages = {area: number for number, area in enumerate(sorted(areas, reverse=True), start=1)}
    candidates = []
    for name, block, rule in found:
        place = places.get(name)
        if place is None:
            candidates.append(Candidate(name, block, rule, None, "did not run on a map"))
        elif place.output == (1, 1):
            candidates.append(Candidate(name, block, rule, None, "works on a 1 x 1 map"))
        else:
            stage = stages[place.output[0] * place.output[1]]
            obstacle = "" if place.keeps_resolution and _stride(block) == 1 else CHANGES_RESOLUTION
            candidates.append(Candidate(name, block, rule, stage, obstacle))
    return candidates


def choose(
    candidates: list[Candidate], where: Where | None, stages: Collection[int] | None
) -> dict[str, tuple[Candidate, str]]:
    """{name: (candidate, why it is left, empty where it shall be converted)}, in network order.

    `ValueError` where `stages` names one that the network does not have.
    """
    known = sorted({candidate.stage for candidate in candidates if candidate.stage is not None})
    if stages is not None and (unknown := sorted(set(stages) - set(known))):
        raise ValueError(f"no stage {unknown}; the network has the stages {known}")
    wanted = set((known[:-1] or known) if stages is None else stages)
    outcomes = {}
    for candidate in candidates:
        reason = candidate.obstacle
        if candidate.stage is not None and candidate.stage not in wanted:
            last = stages is None and candidate.stage == known[-1]
            reason = "in the last stage" if last else "in a stage that was not asked for"
        elif not reason and where is not None and not where(candidate.name, candidate.block):
            reason = "excluded by where"
        outcomes[candidate.name] = (candidate, reason)
    return outcomes


def _stride(block: nn.Module) -> int:
    """The largest stride of any convolution in the block."""
    return max((max(m.stride) for m in block.modules() if isinstance(m, nn.Conv2d)), default=1)
