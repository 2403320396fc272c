"""From the tensors of the released code to this package's, by rules on names and blocks.

The released code stores every ResNeXt bottleneck, and the blocks of its elastic DLA and DenseNet networks, as two
branches of half the width: `conv1`, ... at full resolution and `conv1_d`, ... below it. Where our block is elastic,
they are its two branches. Where it is plain, both run at full resolution there, and together they are our one block of
the whole width: the branches' inner layers side by side (the groups of a grouped convolution with them), and the last
convolution, whose outputs are summed, along its inputs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

LOW = "_d"  # ends the names of the low-resolution branch's layers
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class BlockRule:
    """How a two-branch block is laid out there and here.

    inner: layers of each branch that are divided along their outputs. last: the one divided along its inputs.
    shared: {their layer: (its name in our elastic block, in our plain block)}, for what a block has once.
    """

    inner: tuple[str, ...]
    last: str
    shared: dict[str, tuple[str, str]]


BOTTLENECK = BlockRule(
    inner=("conv1", "bn1", "conv2", "bn2"),
    last="conv3",
    shared={
        "bn3": ("tail.bn3", "bn3"),
        "selayer.conv1": ("tail.se.fc1", "se.fc1"),
        "selayer.conv2": ("tail.se.fc2", "se.fc2"),
        "downsample.0": ("shortcut.0", "downsample.0"),
        "downsample.1": ("shortcut.1", "downsample.1"),
    },
)
DENSE_LAYER = BlockRule(inner=("conv1", "norm2"), last="conv2", shared={"norm1": ("norm1", "norm1")})

# Names outside of the blocks: (pattern, ours), the first that matches. DeepLab's backbone has no prefix there.
_DEEPLAB_RENAMES = (
    (r"^aspp\.aspp([1-4])\.", lambda m: f"aspp.convs.{int(m[1]) - 1}.0."),
    (r"^aspp\.aspp([1-4])_bn\.", lambda m: f"aspp.convs.{int(m[1]) - 1}.1."),
    (r"^aspp\.aspp5\.", "aspp.convs.4.1."),
    (r"^aspp\.aspp5_bn\.", "aspp.convs.4.2."),
    (r"^aspp\.conv2\.", "aspp.project.0."),
    (r"^aspp\.bn2\.", "aspp.project.1."),
    (r"^aspp\.conv3\.", "classifier."),
    (r"^(?=conv1\.|bn1\.|layer\d)", "backbone."),
)
_PARTS = {"proj": "projects", "up": "ups", "node": "nodes"}
_RENAMES = (
    (r"^features\.norm_final\.", "features.norm5."),
    (r"^base\.", "backbone."),
    (
        r"^dla_up\.ida_(\d+)\.(proj|up|node)_(\d+)\.",
        lambda m: f"decoder.rows.{m[1]}.{_PARTS[m[2]]}.{int(m[3]) - 1}.",
    ),
    (r"^fc\.0\.", "classifier."),
    (r"^up\.", "upsample."),
)


@dataclass
class Translation:
    """`state`: our tensors; `ignored`: the names of theirs that no output depends on."""

    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)


def translate(released: Mapping[str, Tensor], network: nn.Module) -> Translation:
    """The tensors `released` (names without `module.`) as the state dict of `network`, our network of that kind.

    Strict: raises `ValueError`, naming tensors, where one of ours stays empty, one of theirs is left over, or a shape
    differs. Absent batch counters (`num_batches_tracked`, unknown to early PyTorch) start at zero.
    """
    ignored = unused(released)
    deeplab = any(name.startswith("aspp.") for name in released)
    theirs = {_rename(name, deeplab): tensor for name, tensor in released.items() if name not in set(ignored)}
    ours = _translate_blocks(theirs, network)
    expected = network.state_dict()
    for name in expected:
        if name.endswith(COUNTER):
            ours.setdefault(name, torch.zeros((), dtype=torch.int64))
    _check(ours, expected)
    return Translation({name: ours[name] for name in expected}, ignored)


def unused(released: Iterable[str]) -> list[str]:
    """Names of tensors that no output of the released code depends on.

    These are a DLA tree's `project` where its first half is a tree again, which projects by itself, and the classifier
    of a segmentation network's backbone.
    """
    names = list(released)
    trees = {name.partition(".project.")[0] for name in names if ".project." in name}
    dead = {tree for tree in trees if any(name.startswith(f"{tree}.tree1.tree1.") for name in names)}
    return [name for name in names if name.startswith("base.fc.") or name.partition(".project.")[0] in dead]


def _rename(name: str, deeplab: bool) -> str:
    for pattern, ours in _DEEPLAB_RENAMES if deeplab else _RENAMES:
        renamed, count = re.subn(pattern, ours, name)
        if count:
            return renamed
    return name


def _translate_blocks(theirs: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Two-branch blocks by their rules; every other tensor keeps its name."""
    low_layer = re.compile(rf"^(.+)\.(?:conv1|norm2|bn1){LOW}\.")
    blocks = sorted({match.group(1) for name in theirs if (match := low_layer.match(name))})
    modules = dict(network.named_modules())
    ours = dict(theirs)
    for block in blocks:
        if block not in modules:
            raise ValueError(f"the network has no block {block}, which the released tensors name")
        prefix = block + "."
        tensors = {name[len(prefix) :]: ours.pop(name) for name in theirs if name.startswith(prefix)}
        rule = DENSE_LAYER if "norm1.weight" in tensors else BOTTLENECK
        move = _split if hasattr(modules[block], "branches") else _merge
        ours |= {prefix + name: tensor for name, tensor in move(tensors, rule, block).items()}
    return ours


def _split(tensors: dict[str, Tensor], rule: BlockRule, block: str) -> dict[str, Tensor]:
    """Their two branches as the branches of an elastic block."""
    ours = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if layer.removesuffix(LOW) in (*rule.inner, rule.last):
            branch = "low.0" if layer.endswith(LOW) else "high"
            ours[f"branches.{branch}.transform.{layer.removesuffix(LOW)}.{leaf}"] = tensor
        else:
            ours[f"{_shared(rule, layer, block)[0]}.{leaf}"] = tensor
    return ours


def _merge(tensors: dict[str, Tensor], rule: BlockRule, block: str) -> dict[str, Tensor]:
    """Their two branches, both at full resolution, as one block of the whole width."""
    ours = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if layer.removesuffix(LOW) not in (*rule.inner, rule.last):
            ours[f"{_shared(rule, layer, block)[1]}.{leaf}"] = tensor
        elif not layer.endswith(LOW):
            low = tensors.get(f"{layer}{LOW}.{leaf}")
            if low is None:
                raise ValueError(f"the released tensors lack {block}.{layer}{LOW}.{leaf}")
            dim = 1 if layer == rule.last else 0
            ours[name] = tensor if leaf == COUNTER else torch.cat((tensor, low), dim)
        elif f"{layer.removesuffix(LOW)}.{leaf}" not in tensors:
            raise ValueError(f"the released tensors lack {block}.{layer.removesuffix(LOW)}.{leaf}")
    return ours


def _shared(rule: BlockRule, layer: str, block: str) -> tuple[str, str]:
    if layer not in rule.shared:
        raise ValueError(f"unknown layer {layer} in the released block {block}")
    return rule.shared[layer]


def _check(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """`ValueError` unless both have the same names and shapes."""
    missing = [name for name in expected if name not in ours]
    left_over = [name for name in ours if name not in expected]
    shapes = [
        f"{name} is {tuple(ours[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in ours and ours[name].shape != tensor.shape
    ]
    kinds = [
        f"{name} is {ours[name].dtype}"
        for name, tensor in expected.items()
        if name in ours and ours[name].is_floating_point() != tensor.is_floating_point()
    ]
    problems = []
    for what, names in (
        ("missing", missing),
        ("left over", left_over),
        ("of another shape", shapes),
        ("of another kind", kinds),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"{what}: {', '.join(names[:3])}{more}")
    if problems:
        raise ValueError(f"the released tensors do not fit the network; {'; '.join(problems)}")
