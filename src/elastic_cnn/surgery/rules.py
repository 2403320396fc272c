"""The rules of surgery: for each block family, how to know it, where it stands and how to convert it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from elastic_cnn.nn.branches import ElasticSpec
from elastic_cnn.surgery import residual


@dataclass(frozen=True)
class Rule:
    """One block family.

    kind: its name in reports.
    block_types: the module classes it applies to.
    convert: (block, spec) -> elastic block with the same weights; raises `CannotDivide` with the reason.
    stage_pattern: regular expression on the block's name in the network; group 1 is the stage number.
    """

    kind: str
    block_types: tuple[type[nn.Module], ...]
    convert: Callable[[nn.Module, ElasticSpec], nn.Module]
    stage_pattern: re.Pattern[str]

    def stage(self, name: str) -> int | None:
        """The number of the stage that a block of this name belongs to, None where the name does not tell."""
        match = self.stage_pattern.search(name)
        return int(match.group(1)) if match else None


_RESNET_STAGE = re.compile(r"(?:^|\.)layer(\d+)\.")

RULES: tuple[Rule, ...] = (
    Rule("bottleneck", residual.BOTTLENECKS, residual.convert_bottleneck, _RESNET_STAGE),
    Rule("basic block", residual.BASIC_BLOCKS, residual.convert_basic_block, _RESNET_STAGE),
)


def find_rule(module: nn.Module) -> Rule | None:
    """The rule for this very class (a subclass may compute something else), None where there is none."""
    return next((rule for rule in RULES if type(module) in rule.block_types), None)
