"""What a surgery did: every candidate block, converted or left, and why."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from elastic_cnn.nn import ElasticSpec
from elastic_cnn.surgery.sections import Section


@dataclass(frozen=True)
class BlockOutcome:
    """One candidate block: `reason` is empty where it was converted."""

    name: str
    kind: str
    reason: str = ""

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
    """

    blocks: list[BlockOutcome] = field(default_factory=list)
    conversions: dict[str, Conversion] = field(default_factory=dict, repr=False)

    @property
    def converted(self) -> list[str]:
        return [block.name for block in self.blocks if block.converted]

    @property
    def left(self) -> dict[str, str]:
        """{block name: why it was left}"""
        return {block.name: block.reason for block in self.blocks if not block.converted}

    def __str__(self) -> str:
        kinds = Counter(block.kind for block in self.blocks if block.converted)
        made = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
        lines = [f"{len(self.converted)} of {len(self.blocks)} blocks are elastic ({made})"]
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"  left, {reason}: {', '.join(names)}" for reason, names in reasons.items()]
        return "\n".join(lines)
