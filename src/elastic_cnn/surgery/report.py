"""What a surgery did: every candidate block, converted or left, and why."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from torch import nn

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery.sections import Section


@dataclass(frozen=True)
class BlockOutcome:
    """One candidate, a block or a single layer. reason: why it was left, empty where it was converted.

    stage: the number of its stage, counted from 1: as the family names it (ResNet's `layer2`), else one for each
    resolution that the network's blocks work at, from the highest on; None where it has no place on a map.
    """

    name: str
    kind: str
    reason: str = ""
    stage: int | None = None

    @property
    def converted(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Conversion:
    """How one block was converted: the block as it was, on the meta device, by which function and spec.

    sections: what that divided over the branches (`sections.py`).
    """

    original: nn.Module
    convert: Callable[[Any, ElasticSpec], nn.Module]
    spec: ElasticSpec
    sections: Callable[[Any, ElasticSpec], list[Section]]


@dataclass
class SurgeryReport:
    """The outcome of `elasticize`, in network order. `str()` prints it for people.

    conversions: {name of a converted block: how}, enough to undo it.
    verified: the error of the elastic network at blend 0 against the original, relative to its largest output; None
        where it was not compared. note: on what it was compared, or why not.
    refitted: whether `convert` also changed weights, so that undoing the division does not give back the function.
    """

    blocks: list[BlockOutcome] = field(default_factory=list)
    conversions: dict[str, Conversion] = field(default_factory=dict, repr=False)
    verified: float | None = None
    note: str = ""
    refitted: bool = False

    @property
    def converted(self) -> list[str]:
        return [block.name for block in self.blocks if block.converted]

    @property
    def left(self) -> dict[str, str]:
        """{block name: why it was left}"""
        return {block.name: block.reason for block in self.blocks if not block.converted}

    @property
    def stages(self) -> dict[str, int]:
        """{name of a converted block: its stage}, where it has one."""
        return {block.name: block.stage for block in self.blocks if block.converted and block.stage is not None}

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        rules = [block for block in self.blocks if block.kind not in LAYER_KINDS]
        layers = [block for block in self.blocks if block.kind in LAYER_KINDS]
        first = [_count(group, what) for group, what in ((rules, "blocks"), (layers, "single layers")) if group]
        lines = [", ".join(first) or "0 of 0 blocks are elastic (none)"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"  left, {reason}: {', '.join(names)}" for reason, names in reasons.items()]
        if self.note:
            lines.append(f"  {self.note}")
        return "\n".join(lines)


# Kinds of single layers, all others are blocks that a rule knows.
LAYER_KINDS = frozenset(
    (
        *("convolution", "linear layer", "scripted convolution", "quantized convolution", "1-D convolution"),
        *("3-D convolution", "transposed convolution"),
    )
)


def _count(group: list[BlockOutcome], what: str) -> str:
    """`4 of 7 blocks are elastic (4 bottleneck)`."""
    kinds = Counter(block.kind for block in group if block.converted)
    made = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    return f"{sum(kinds.values())} of {len(group)} {what} are elastic ({made})"
