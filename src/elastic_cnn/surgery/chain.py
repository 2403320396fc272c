"""Blocks whose layers run one after another: the middle of the chain is divided, the block's own forward stays.

A rule names the block's layers in the order in which they run, ("conv1", "conv2", "se", "conv3") say. Branches begin at
the first convolution, divided along its outputs (along its groups where it has them), and take the layers that follow:

    until a convolution without groups   it is divided along its inputs, and the branches' outputs sum
    until anything else                  that mixes channels, or the end: the branches' outputs stand side by side

The first convolution's place takes the branches, the places of the other layers in them an `Identity`, and what comes
after runs once on the whole, as it did. Every number of the block lands in exactly one place, so with D = U = identity
the function is the block's own. Where a chain cannot be divided so, its convolutions are divided one by one.
"""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from elastic_cnn.nn import CannotDivide, ElasticSpec, GatedBranches, PartedBranches, convert_convolution, make_branches
from elastic_cnn.nn.split import (
    divide_count,
    divide_groups,
    divide_inputs,
    divide_norm,
    divide_outputs,
    is_plain_convolution,
    is_standardized_convolution,
    require_convolution,
)
from elastic_cnn.surgery.chain_blocks import RUN_IN_ORDER
from elastic_cnn.surgery.layers import find_gate, is_elementwise, is_norm
from elastic_cnn.surgery.sections import Section, section_of_convolution

Leaf = tuple[str, nn.Module]


@dataclass
class _Section:
    """The part of a chain that goes into branches. `pieces[l][b]` is layer l of branch b."""

    names: list[str] = field(default_factory=list)
    pieces: list[list[nn.Module]] = field(default_factory=list)
    input_parts: list[int] = field(default_factory=list)  # of the block's input; empty where all branches see all of it
    channels: list[int] = field(default_factory=list)  # of each branch, after the layers so far
    gate: nn.Module | None = None
    gated_channels: list[int] = field(default_factory=list)
    ungated_layers: int = 0
    gate_name: str = ""
    probe: str = ""
    sums: bool = False

    def add(self, name: str, pieces: Sequence[nn.Module]) -> None:
        self.names.append(name)
        self.pieces.append(list(pieces))


def convert_chain(block: nn.Module, spec: ElasticSpec, paths: Sequence[Sequence[str]]) -> nn.Module:
    """A copy of `block` with each of `paths` (dotted names of layers that run one after another) made elastic.

    `CannotDivide` where nothing in any of them can be divided.
    """
    elastic = copy.deepcopy(block)
    refusals = []
    for path in paths:
        try:
            _convert_path(elastic, spec, path)
        except CannotDivide as refusal:
            refusals.append(str(refusal))
    if len(refusals) == len(paths):
        raise CannotDivide("; ".join(dict.fromkeys(refusals)))
    return elastic


def _convert_path(block: nn.Module, spec: ElasticSpec, path: Sequence[str]) -> None:
    """Divide section after section of one path, in place; convolution by convolution where there is no section."""
    leaves, sections, refusal = _find_sections(block, spec, path)
    for section, first in sections:
        branches: Any = _make_branches(section, spec)
        branches.in_channels, branches.out_channels = first.in_channels, _outputs(section)  # timm asks for them
        for name in [*section.names, section.gate_name]:
            if name:
                gone: Any = nn.Identity()
                gone.in_channels = gone.out_channels = branches.out_channels
                _replace(block, name, gone)
        _replace(block, section.names[0], branches)
    if not sections:
        _convert_one_by_one(block, spec, leaves, refusal)


def _find_sections(
    block: nn.Module, spec: ElasticSpec, path: Sequence[str]
) -> tuple[list[Leaf], list[tuple[_Section, Any]], CannotDivide]:
    """The leaves of a path, its sections, each with its first convolution, and why there are no (more) of them."""
    leaves = [leaf for name in path for leaf in _leaves(name, _child(block, name))]
    rest, sections, refusal = leaves, [], CannotDivide("has no convolution to divide")
    while rest := _from_first_convolution(rest):
        try:
            section, after = _divide(rest, spec)
        except CannotDivide as obstacle:
            refusal, rest = obstacle, rest[1:]
            continue
        sections.append((section, rest[0][1]))
        rest = after
    return leaves, sections, refusal


def chain_sections(block: nn.Module, spec: ElasticSpec, paths: Sequence[Sequence[str]]) -> list[Section]:
    """The channels that `convert_chain` divides under the same arguments, section by section."""
    found = []
    for path in paths:
        leaves, sections, _ = _find_sections(block, spec, path)
        inside = {name for section, _ in sections for name in section.names}
        outside: list[tuple[str, Any]] = [leaf for leaf in leaves if leaf[0] not in inside]
        for section, _ in sections:
            names = list(section.names)
            position = [name for name, _ in leaves].index(names[-1])
            after = [name for name, m in leaves[position:] if isinstance(m, nn.Conv2d) and (name, m) in outside]
            last = names.pop() if section.sums else None
            if section.gate_name:
                names.insert(section.ungated_layers, section.gate_name)
            found.append(Section(tuple(names), last, tuple((name, name) for name in after)))
        if not sections:
            found += [section_of_convolution(name, conv) for name, conv in outside if _divides_alone(conv, spec)]
    return found


def _divides_alone(module: Any, spec: ElasticSpec) -> bool:
    try:
        return isinstance(module, nn.Conv2d) and bool(convert_convolution(module, spec))
    except CannotDivide:
        return False


def _from_first_convolution(leaves: list[Leaf]) -> list[Leaf]:
    return next((leaves[i:] for i, (_, module) in enumerate(leaves) if isinstance(module, nn.Conv2d)), [])


def _child(block: nn.Module, name: str) -> nn.Module | None:
    """The layer of this dotted name, None where the block goes without it."""
    module: Any = block
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _leaves(name: str, module: nn.Module | None) -> list[Leaf]:
    """The layers in a module that runs its children one after another, in order; else the module itself."""
    if module is None or isinstance(module, nn.Identity):
        return []
    if type(module) in RUN_IN_ORDER:
        return [leaf for child, part in module.named_children() for leaf in _leaves(f"{name}.{child}", part)]
    return [(name, module)]


def _divide(leaves: list[Leaf], spec: ElasticSpec) -> tuple[_Section, list[Leaf]]:
    """The section that starts at the first leaf, a convolution, and the leaves after it.

    `CannotDivide` where the section would hold no second convolution.
    """
    section = _open(leaves, spec)
    taken = convolutions = 1
    for name, module in leaves[1:]:
        try:
            went_in = not section.sums and _take_in(section, name, module)
        except CannotDivide:  # the section ends before it
            break
        if not went_in:
            break
        taken += 1
        convolutions += isinstance(module, nn.Conv2d)
    if convolutions < 2:
        raise CannotDivide("its convolutions cannot be divided together")
    return section, leaves[taken:]


def _take_in(section: _Section, name: str, module: nn.Module) -> bool:
    """Add a layer, divided, to the section; False where it mixes the channels of the branches."""
    if isinstance(module, nn.Conv2d):
        return _take_in_convolution(section, name, module)
    if is_norm(module):
        section.add(name, divide_norm(module, section.channels))
    elif is_elementwise(module):
        section.add(name, [copy.deepcopy(module) for _ in section.channels])
    elif section.gate is None and (gate := find_gate(module)) is not None:
        section.gate, section.gate_name, section.gated_channels = gate, name, list(section.channels)
        section.ungated_layers = len(section.names)
    else:
        return False
    return True


def _take_in_convolution(section: _Section, name: str, conv: nn.Conv2d) -> bool:
    standardized = is_standardized_convolution(conv)
    if not (standardized or is_plain_convolution(conv)) or max(conv.stride) > 1:
        return False
    if conv.groups > 1:
        section.add(name, divide_groups(conv, _groups_of(conv, section.channels)))
        section.channels = [count * conv.out_channels // conv.in_channels for count in section.channels]
    elif standardized:
        return False
    else:
        section.probe = section.names[-1]
        section.add(name, divide_inputs(conv, section.channels))
        section.sums = True
    return True


def _open(leaves: list[Leaf], spec: ElasticSpec) -> _Section:
    """The section with its first convolution; the parts suit the first grouped convolution up to one without groups."""
    name, first = leaves[0]
    require_convolution(first)
    if not isinstance(first, nn.Conv2d) or max(first.stride) > 1:
        raise CannotDivide("its first convolution changes the resolution")
    section = _Section()
    if first.groups > 1:
        groups = divide_count(first.groups, spec.shares, "groups")
        pieces = divide_groups(first, groups)
        section.input_parts = [piece.in_channels for piece in pieces]
    else:
        later = [module for _, module in leaves[1:] if isinstance(module, nn.Conv2d)]
        grouped = later[0] if later and later[0].groups > 1 else None
        if grouped is None:
            parts = divide_count(first.out_channels, spec.shares)
        else:
            each = grouped.in_channels // grouped.groups
            parts = [each * part for part in divide_count(grouped.groups, spec.shares, "groups")]
        pieces = divide_outputs(first, parts)
    section.channels = [piece.out_channels for piece in pieces]
    section.add(name, pieces)
    return section


def _groups_of(conv: nn.Conv2d, channels: Sequence[int]) -> list[int]:
    """How many groups these channels are. `CannotDivide` where they cut one."""
    each = conv.in_channels // conv.groups
    if any(count % each for count in channels):
        raise CannotDivide(f"channels {list(channels)} do not fall on groups of {each}")
    return [count // each for count in channels]


def _make_branches(section: _Section, spec: ElasticSpec) -> PartedBranches:
    names = [name.replace(".", "_") for name in section.names]
    transforms = [
        nn.Sequential(OrderedDict(zip(names, layers, strict=True))) for layers in zip(*section.pieces, strict=True)
    ]
    probe = section.probe.replace(".", "_") or names[-1]
    branches = PartedBranches(make_branches(transforms, spec, probe), section.input_parts, not section.sums)
    if section.gate is None:
        return branches
    return GatedBranches(branches, section.gate, section.gated_channels, section.ungated_layers)


def _outputs(section: _Section) -> int:
    """How many channels the branches hand on together."""
    last: list[Any] = next(row for row in reversed(section.pieces) if isinstance(row[0], nn.Conv2d))
    return int(last[0].out_channels) if section.sums else sum(section.channels)


def _replace(block: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(block.get_submodule(parent), child, new)


def _convert_one_by_one(block: nn.Module, spec: ElasticSpec, leaves: list[Leaf], refusal: CannotDivide) -> None:
    """Each convolution of the path by itself. `CannotDivide` where none can be."""
    converted = 0
    for name, module in leaves:
        if isinstance(module, nn.Conv2d):
            try:
                _replace(block, name, convert_convolution(module, spec))
                converted += 1
            except CannotDivide:
                continue
    if not converted:
        raise refusal
