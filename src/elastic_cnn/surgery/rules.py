"""The rules of surgery: for each block family, how to know it, where it stands and how to convert it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from elastic_cnn.nn import ElasticSpec, convert_convolution, convert_linear
from elastic_cnn.surgery import convnext_block, dense_layer, dla_block, repvgg_block, residual
from elastic_cnn.surgery.chain import chain_sections, convert_chain
from elastic_cnn.surgery.chain_blocks import CHAIN_BLOCKS
from elastic_cnn.surgery.sections import Section, convolution_sections, linear_sections


@dataclass(frozen=True)
class Rule:
    """One block family.

    kind: its name in reports.
    block_types: the module classes it applies to.
    convert: (block, spec) -> elastic block with the same weights; raises `CannotDivide` with the reason.
    sections: (block, spec) -> the channels that `convert` divides over the branches (see `sections.py`).
    stage_pattern: regular expression on the block's name in the network, group 1 is the stage number; None where names
        do not tell and the stage is measured by resolution instead.
    first_block_strides: whether the first block of every later stage changes the resolution, whatever its stride was
        set to by an output stride.
    """

    kind: str
    block_types: tuple[type[nn.Module], ...]
    convert: Callable[[Any, ElasticSpec], nn.Module]
    sections: Callable[[Any, ElasticSpec], list[Section]]
    stage_pattern: re.Pattern[str] | None = None
    first_block_strides: bool = True

    def stage(self, name: str) -> int | None:
        """The number of the stage that a block of this name belongs to, None where the name does not tell."""
        match = self.stage_pattern.search(name) if self.stage_pattern else None
        return int(match.group(1)) if match else None


_RESNET_STAGE = re.compile(r"(?:^|\.)layer(\d+)\.")
_DLA_STAGE = re.compile(r"(?:^|\.)level(\d+)\.")
_DENSENET_STAGE = re.compile(r"(?:^|\.)denseblock(\d+)\.")

RULES: tuple[Rule, ...] = (
    Rule("bottleneck", residual.BOTTLENECKS, residual.convert_bottleneck, residual.bottleneck_sections, _RESNET_STAGE),
    Rule(
        "basic block", residual.BASIC_BLOCKS, residual.convert_basic_block, residual.basic_block_sections, _RESNET_STAGE
    ),
    Rule(
        "DLA bottleneck",
        dla_block.BOTTLENECKS,
        dla_block.convert_dla_bottleneck,
        residual.bottleneck_sections,
        _DLA_STAGE,
    ),
    Rule(
        "DLA basic block",
        dla_block.BASIC_BLOCKS,
        dla_block.convert_dla_basic_block,
        residual.basic_block_sections,
        _DLA_STAGE,
    ),
    Rule(
        "dense layer",
        (dense_layer.DenseLayer,),
        dense_layer.convert_dense_layer,
        dense_layer.dense_layer_sections,
        _DENSENET_STAGE,
        first_block_strides=False,
    ),
    Rule(
        "ConvNeXt block",
        (convnext_block.ConvNeXtBlock,),
        convnext_block.convert_convnext_block,
        convnext_block.convnext_sections,
    ),
    Rule("RepVGG block", repvgg_block.BLOCKS, repvgg_block.convert_repvgg_block, repvgg_block.repvgg_sections),
    *(
        Rule(b.kind, b.types, partial(convert_chain, paths=b.paths), partial(chain_sections, paths=b.paths))
        for b in CHAIN_BLOCKS
    ),
)

# One layer at a time, where no rule knows a block: convolutions, and linear layers over the channels of maps.
CONVOLUTION = Rule("convolution", (nn.Conv2d,), convert_convolution, convolution_sections)
LINEAR = Rule("linear layer", (nn.Linear,), convert_linear, linear_sections)
SINGLE = (CONVOLUTION, LINEAR)

# Where the rules' blocks are written. What else stands there (stems, roots, transitions) is the families' own: it is
# known, and left.
FAMILIES = frozenset(block_type.__module__ for rule in RULES for block_type in rule.block_types)


def find_rule(module: nn.Module) -> Rule | None:
    """The rule for this very class (a subclass may compute something else), None where there is none."""
    return next((rule for rule in RULES if type(module) in rule.block_types), None)


def find_single_rule(module: nn.Module) -> Rule | None:
    """The rule for a convolution (subclasses too, which say why they are left) or a linear layer; None for others."""
    if isinstance(module, nn.Conv2d):
        return CONVOLUTION
    return LINEAR if type(module) is nn.Linear else None
