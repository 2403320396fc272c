"""Which blocks and layers of a network may become elastic, decided by where they stand in it.

A block is eligible when it keeps its resolution and is not in the last stage, the one of the lowest resolution. Single
layers are eligible where no rule knows the block around them, on maps that are large enough.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from elastic_cnn.nn.example import Example, recorded_example
from elastic_cnn.nn.trial import CannotRun
from elastic_cnn.surgery.obstacles import (
    ELASTIC_ALREADY,
    elastic_parts,
    kind_of_other_convolution,
    obstacle,
    read_by_parents,
    shared_parameters,
    tie,
)
from elastic_cnn.surgery.resolutions import MapSizes, Size, Survey, measure_resolutions
from elastic_cnn.surgery.rules import CONVOLUTION, FAMILIES, LINEAR, SINGLE, Rule, find_rule, find_single_rule

Where = Callable[[str, nn.Module], bool]

CHANGES_RESOLUTION = "changes the resolution"
OF_A_FAMILY = "part of a family whose blocks alone are converted"
SMALLEST_MAP = 8  # the shorter side of a map on which a layer beside the rules' blocks is converted
MOST_STRETCHED = 16  # a map whose sides' ratio is so many times the image's has no image axes (boxes, anchors, bins)
# Modules that only hold others: what is written in them belongs to whoever made them.
_GENERIC = ("torch.nn.", "timm.layers.", "torchvision.ops.misc")


@dataclass(frozen=True)
class Candidate:
    """A block that a rule knows, or a single layer: the number of its stage, counted from 1, and what speaks against
    converting it. kind: its name in reports."""

    name: str
    block: nn.Module
    rule: Rule
    stage: int | None = None
    obstacle: str = ""
    kind: str = ""

    def left(self, reason: str) -> "Candidate":
        """The same with one more thing against it; the first stays."""
        return self if self.obstacle or not reason else replace(self, obstacle=reason)


class Candidates:
    """The candidates of one network. Its resolutions are measured at most once, and only where they are needed.

    example: as `Example.of` takes it; None for what the network tells of itself. given: it, or the one recorded on the
    network, or None.
    """

    def __init__(self, network: nn.Module, example: Any = None):
        self.network = network
        self.given = recorded_example(network) if example is None else Example.of(example)
        self._survey: Survey | None = None
        self._elastic = {id(child) for part in elastic_parts(network) for child in part.modules()}
        self._shared = shared_parameters(network)

    @property
    def survey(self) -> Survey:
        """Where the network's layers and known blocks stand. `CannotRun` where it does not run."""
        if self._survey is None:
            self._survey = measure_resolutions(
                self.network,
                lambda module: find_rule(module) is not None or find_single_rule(module) is not None,
                self.given,
            )
        return self._survey

    @property
    def measured(self) -> Survey | None:
        """The survey where it was needed, None elsewhere."""
        return self._survey

    def blocks(self) -> list[Candidate]:
        """The blocks that a rule knows, in network order; blocks inside another such block are left out."""
        found: list[Candidate] = []
        for name, module in self.network.named_modules():
            inside = any(name.startswith(f"{outer.name}.") for outer in found)
            if name and not inside and (rule := find_rule(module)):
                reason = ELASTIC_ALREADY if id(module) in self._elastic else self._own_obstacle(module)
                found.append(Candidate(name, module, rule, obstacle=reason))
        found = [candidate for candidate in found if candidate.obstacle != ELASTIC_ALREADY]
        if all(candidate.rule.stage(candidate.name) is not None for candidate in found):
            return _staged_by_name(found)
        return self._staged_by_resolution(found)

    def layers(self) -> list[Candidate]:
        """Every convolution and every linear layer over maps, in network order, whatever block they stand in."""
        found = self._single(lambda name: True)
        return found if all(candidate.obstacle for candidate in found) else self._staged_by_resolution(found)

    def layers_beside(self, blocks: list[Candidate]) -> list[Candidate]:
        """The layers outside of `blocks`, in network order. What belongs to the blocks' families is left, and so is
        what stands before the first of them (stems) or works on a small map. Stages are those of `blocks`: the stage
        at the same resolution, else the next coarser one."""
        names = [block.name for block in blocks]
        found = self._single(lambda name: not any(name.startswith(f"{outer}.") for outer in names))
        owners = dict(self.network.named_modules())
        found = [
            candidate.left(OF_A_FAMILY) if _is_of_a_family(candidate.name, owners) else candidate for candidate in found
        ]
        if all(candidate.obstacle for candidate in found):  # nothing to measure
            return found
        try:
            measured = self.survey.sizes
        except CannotRun as error:
            return [candidate.left(f"its resolution cannot be told: {error}") for candidate in found]
        first = min((index for index, name in enumerate(measured) if name in names), default=0)
        order = {name: index for index, name in enumerate(measured)}
        areas: dict[int, int] = {}  # {stage: the area of its maps}
        for block in blocks:
            if block.stage is not None and block.name in measured:
                areas.setdefault(block.stage, _area(measured[block.name].output))
        beside = []
        for candidate in found:
            maps = measured.get(candidate.name)
            size = None if maps is None else maps.input if _takes_margin(candidate.block, maps) else maps.output
            stage = None if size is None else _stage_at(_area(size), areas)
            judged = replace(self._judged(candidate, maps), stage=stage)
            if maps is not None and order[candidate.name] < first:
                judged = judged.left("stands before the first block (a stem)")
            if maps is not None and min(maps.output) < SMALLEST_MAP:
                judged = judged.left(f"works on a map of {maps.output[0]} x {maps.output[1]}, too small to gain")
            beside.append(judged)
        return beside

    def _own_obstacle(self, module: nn.Module) -> str:
        return obstacle(module) or tie(module, self._shared)

    def _single(self, wanted: Callable[[str], bool]) -> list[Candidate]:
        """Single layers, without their resolutions; other kinds of convolution with the reason why they are left."""
        read = read_by_parents(self.network)
        found = []
        for name, module in self.network.named_modules():
            if not name or not wanted(name) or id(module) in self._elastic:
                continue
            if other := kind_of_other_convolution(module):
                found.append(Candidate(name, module, CONVOLUTION, obstacle=other[1], kind=other[0]))
            elif (rule := find_single_rule(module)) is CONVOLUTION or (
                rule is LINEAR and self._is_over_maps(name, module)
            ):
                candidate = Candidate(name, module, rule).left(self._own_obstacle(module))
                found.append(candidate.left("its weight is read by the module around it" if name in read else ""))
        return found

    def _is_over_maps(self, name: str, module: nn.Module) -> bool:
        """Whether a linear layer stands beside convolutions and runs on their maps, channels last."""
        parent = self.network.get_submodule(name.rpartition(".")[0])
        if not any(isinstance(child, nn.Conv2d) for child in parent.modules()):
            return False
        try:
            measured = self.survey.sizes
        except CannotRun:
            return False
        sizes = {maps.output for other, maps in measured.items() if other != name and maps.output != (1, 1)}
        return name in measured and measured[name].output in sizes

    def _judged(self, candidate: Candidate, maps: MapSizes | None) -> Candidate:
        """With what its resolution says against it."""
        survey, block = self.survey, candidate.block
        if candidate.kind:
            return candidate
        if maps is None:
            shape = survey.others.get(candidate.name)
            return candidate.left(f"ran on {shape}, which is no map" if shape else "did not run on a map")
        if maps.output == (1, 1):
            return candidate.left("works on a 1 x 1 map")
        if _stretched(maps.output, survey.image):
            return candidate.left(f"works on {maps.output[0]} x {maps.output[1]}, which has no image axes")
        if _stride(block) > 1 or (not maps.keeps_resolution and candidate.rule is not CONVOLUTION):
            return candidate.left(CHANGES_RESOLUTION)
        return candidate  # what a single convolution takes off its map is judged as it is divided

    def _staged_by_resolution(self, found: list[Candidate]) -> list[Candidate]:
        """A stage for each resolution at which the candidates work, measured on the example."""
        names = {candidate.name for candidate in found}
        measured = {name: maps for name, maps in self.survey.sizes.items() if name in names}
        areas = {
            _area(maps.output)
            for maps in measured.values()
            if maps.output != (1, 1) and not _stretched(maps.output, self.survey.image)
        }
        stages = _number(areas, any(_takes_margin(c.block, measured[c.name]) for c in found if c.name in measured))
        candidates = []
        for candidate in found:
            maps = measured.get(candidate.name)
            stage = None if maps is None else stages.get(_area(maps.output))
            candidates.append(replace(self._judged(candidate, maps), stage=stage))
        return candidates


def _is_of_a_family(name: str, modules: dict[str, nn.Module]) -> bool:
    """Whether the innermost module around it that is more than a container is written where a rule's blocks are."""
    while name:
        name = name.rpartition(".")[0]
        source = f"{type(modules[name]).__module__}."
        if not source.startswith(_GENERIC):
            return source.rstrip(".") in FAMILIES
    return False


def _staged_by_name(found: list[Candidate]) -> list[Candidate]:
    """Stages as the blocks' names number them."""
    candidates: list[Candidate] = []
    seen: set[int | None] = set()
    for candidate in found:
        stage = candidate.rule.stage(candidate.name)
        opens = candidate.rule.first_block_strides and bool(seen) and stage not in seen
        seen.add(stage)
        changes = CHANGES_RESOLUTION if opens or _stride(candidate.block) > 1 else ""
        candidates.append(replace(candidate, stage=stage).left(changes))
    return candidates


def _stage_at(area: int, areas: dict[int, int]) -> int | None:
    """The stage whose maps have this area, the last of them; else that of the next smaller maps, else the last."""
    at_most = [own for own in areas.values() if own <= area]
    wanted = max(at_most) if at_most else min(areas.values(), default=None)
    return max((stage for stage, own in areas.items() if own == wanted), default=None)


def choose(
    candidates: list[Candidate], where: Where | None, stages: Collection[int] | None, everywhere: bool = False
) -> dict[str, tuple[Candidate, str]]:
    """{name: (candidate, why it is left, empty where it shall be converted)}, in network order.

    everywhere: by default all stages, and blocks (not single layers) that change the resolution are no obstacle.
    `ValueError` where `stages` names one that the network does not have.
    """
    known = sorted({candidate.stage for candidate in candidates if candidate.stage is not None})
    if stages is not None and (unknown := sorted(set(stages) - set(known))):
        raise ValueError(f"no stage {unknown}; the network has the stages {known}")
    default = known if everywhere else known[:-1] or known
    wanted = set(default if stages is None else stages)
    outcomes = {}
    for candidate in candidates:
        reason = candidate.obstacle
        if everywhere and reason == CHANGES_RESOLUTION and candidate.rule not in SINGLE:
            reason = ""
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


def _takes_margin(block: nn.Module, maps: MapSizes) -> bool:
    """Whether it is a convolution without a stride that is not padded to keep its map's size."""
    return isinstance(block, nn.Conv2d) and max(block.stride) == 1 and not maps.keeps_resolution


def _number(areas: set[int], margins: bool) -> dict[int, int]:
    """{area: number of its stage}, from the largest on. Where convolutions take margins off their maps (`margins`), an
    area of more than half of the next larger one is of the same stage."""
    stages: dict[int, int] = {}
    number, before = 0, 0
    for area in sorted(areas, reverse=True):
        if not (margins and 2 * area > before > 0):
            number += 1
        stages[area], before = number, area
    return stages


def _area(size: Size) -> int:
    return size[0] * size[1]


def _stretched(size: Size, image: Size | None) -> bool:
    """Whether the ratio of a map's sides is far from the image's, so that its axes are not those of the image."""
    if image is None or 0 in (*size, *image):
        return False
    ratio = (size[0] / size[1]) / (image[0] / image[1])
    return max(ratio, 1 / ratio) >= MOST_STRETCHED
