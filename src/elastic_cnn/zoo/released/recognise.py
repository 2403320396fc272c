"""Which network a set of released tensors belongs to, told from names and shapes alone."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Recognised:
    """A network for `create_model(name, **kwargs)`; `also` names networks that have the same tensors."""

    name: str
    kwargs: dict[str, Any]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signature:
    """What tells the released networks apart.

    family: `resnet`, `densenet` or `dla`. head: `classifier`, `aspp` or `dla_up`. depths: blocks of each stage (DLA: of
    the levels 2 to 5). groups: of a block's 3x3 convolution, both branches together. branches: 1 or 2. se: whether
    blocks squeeze and excite.
    """

    family: str
    head: str
    depths: tuple[int, ...]
    groups: int = 32
    branches: int = 2
    se: bool = False


NETWORKS = {
    Signature("resnet", "classifier", (3, 4, 6, 3)): ("resnext50", "resnext50_selastic"),
    Signature("resnet", "classifier", (6, 8, 5, 3)): ("resnext50_elastic",),
    Signature("resnet", "classifier", (3, 4, 6, 3), se=True): ("se_resnext50",),
    Signature("resnet", "classifier", (6, 8, 5, 3), se=True): ("se_resnext50_elastic",),
    Signature("resnet", "classifier", (3, 4, 23, 3)): ("resnext101",),
    Signature("resnet", "classifier", (12, 14, 20, 3)): ("resnext101_elastic",),
    Signature("resnet", "classifier", (6, 8, 5, 3), groups=64): ("resnext50x2_elastic",),
    Signature("resnet", "classifier", (3, 4, 23, 3), groups=1, branches=1): ("resnet101",),
    Signature("densenet", "classifier", (6, 12, 48, 32), groups=1, branches=1): ("densenet201",),
    Signature("densenet", "classifier", (10, 20, 40, 30), groups=1): ("densenet201_elastic",),
    Signature("dla", "classifier", (2, 4, 8, 2), branches=1): ("dla60x",),
    Signature("dla", "classifier", (2, 4, 8, 2)): ("dla60x_elastic",),
    Signature("dla", "classifier", (2, 8, 16, 2), branches=1): ("dla102x",),
    Signature("dla", "classifier", (2, 8, 16, 2)): ("dla102x_selastic",),
    Signature("dla", "classifier", (8, 8, 8, 2), groups=50): ("dla102x_elastic",),
    Signature("resnet", "aspp", (3, 4, 6, 3)): ("deeplabv3_resnext50",),
    Signature("resnet", "aspp", (6, 8, 5, 3)): ("deeplabv3_resnext50_elastic",),
    Signature("resnet", "aspp", (3, 4, 23, 3)): ("deeplabv3_resnext101",),
    Signature("resnet", "aspp", (12, 14, 20, 3)): ("deeplabv3_resnext101_elastic",),
    Signature("dla", "dla_up", (2, 4, 8, 2), branches=1): ("dla60x_seg",),
    Signature("dla", "dla_up", (2, 4, 8, 2)): ("dla60x_elastic_seg",),
}


def strip(released: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: out of `state_dict`, where they lie inside one, and without the prefix `module.`.

    Raises `ValueError` where there are none.
    """
    inner = released.get("state_dict", released)
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(value, Tensor) for value in inner.values()):
        raise ValueError("this is no state dict: expected tensors by name, bare or under 'state_dict'")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in inner.items()}
    if len(tensors) < len(inner):
        raise ValueError("this state dict holds names twice, with and without 'module.'")
    return tensors


def recognise(released: Mapping[str, Any]) -> Recognised:
    """The network that the tensors belong to, from their names and shapes alone.

    released: a state dict or a dict with one under `state_dict`, with or without `module.` before the names.

    Raises `ValueError`, saying what was found, where it is not one of the paper's networks.
    """
    tensors = strip(released)
    signature, num_classes = describe(tensors)
    if signature not in NETWORKS:
        raise ValueError(f"not a network of the paper: {signature}")
    name, *also = NETWORKS[signature]
    return Recognised(name, {"num_classes": num_classes}, tuple(also))


def describe(tensors: Mapping[str, Tensor]) -> tuple[Signature, int]:
    """The signature of a released network and its number of classes. `ValueError` where the names are not known."""
    family, stage_pattern = _family(tensors)
    head, classifier = _head(tensors)
    blocks: dict[int, set[str]] = defaultdict(set)
    for name in tensors:
        if match := re.match(stage_pattern, name):
            blocks[int(match["stage"])].add(match["block"])
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    branches = 1 + any("conv1_d.weight" in name for name in tensors)
    se = any(".selayer." in name for name in tensors)
    return Signature(family, head, depths, _groups(tensors, branches), branches, se), len(tensors[classifier])


def _family(tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Its name, and a pattern whose groups `stage` and `block` tell the blocks of its stages."""
    families = {
        "conv1.weight": ("resnet", r"layer(?P<stage>\d+)\.(?P<block>\d+)\."),
        "features.conv0.weight": ("densenet", r"features\.denseblock(?P<stage>\d+)\.(?P<block>denselayer\d+)\."),
        "base_layer.0.weight": ("dla", r"level(?P<stage>[2-5])\.(?P<block>(?:tree\d\.)+)conv1\."),
        "base.base_layer.0.weight": ("dla", r"base\.level(?P<stage>[2-5])\.(?P<block>(?:tree\d\.)+)conv1\."),
    }
    for name, family in families.items():
        if name in tensors:
            return family
    raise ValueError(f"not a network of the paper: its first tensor is {next(iter(tensors), 'missing')}")


def _head(tensors: Mapping[str, Tensor]) -> tuple[str, str]:
    """Its name, and that of the tensor whose first dimension is the number of classes."""
    heads = {
        "aspp.conv3.weight": "aspp",
        "fc.0.weight": "dla_up",
        "fc.weight": "classifier",
        "classifier.weight": "classifier",
    }
    for name, head in heads.items():
        if name in tensors:
            return head, name
    raise ValueError(f"the released tensors hold no classifier (none of {', '.join(heads)})")


def _groups(tensors: Mapping[str, Tensor], branches: int) -> int:
    """Groups of the first block's 3x3 convolution, summed over the branches; 1 where it is not grouped."""
    for name, tensor in tensors.items():
        if name.endswith(".conv2.weight") and name.replace(".conv2.", ".conv1.") in tensors:
            inputs = len(tensors[name.replace(".conv2.", ".conv1.")])
            groups = inputs // tensor.shape[1]
            return groups * branches if groups > 1 else 1
    return 1
