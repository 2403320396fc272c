"""What speaks against dividing a block, whatever its family: what hangs on its layers and what else uses them."""

import inspect
import re
from collections import defaultdict
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from elastic_cnn.nn import Branch
from elastic_cnn.nn.trial import HOOK_TABLES

ELASTIC_ALREADY = "elastic already"


def elastic_parts(network: nn.Module) -> list[nn.Module]:
    """The outermost modules inside `network` that surgery has been on: elastic blocks, and networks with a report."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in network.modules():
        if module is network or id(module) in inside:
            continue
        report = getattr(module, "elastic_report", None)
        if report is not None or any(isinstance(child, Branch) for child in module.modules() if child is not module):
            if report is None and not _is_elastic_block(module):
                continue
            found.append(module)
            inside |= {id(child) for child in module.modules()}
    return found


def _is_elastic_block(module: nn.Module) -> bool:
    """Whether it holds branches and is more than a container of such blocks."""
    return type(module).__module__.startswith("elastic_cnn.nn") or any(
        type(child).__module__.startswith("elastic_cnn.nn") for child in module.children()
    )


def obstacle(block: nn.Module) -> str:
    """Why the layers of `block` cannot be taken apart; empty where they can.

    Forward hooks on `block` itself are carried over; on layers inside they would be lost or fire for every branch.
    """
    for name, layer in block.named_modules():
        where = f"its layer {name}" if name else "it"
        if "forward" in vars(layer):
            return f"the forward of {where} was replaced on the object"
        if reason := _computed_weight(layer):
            return f"{where} {reason}"
        if name and any(getattr(layer, table, None) for table in HOOK_TABLES):
            return f"hooks hang on {where}: remove them, or put them on the whole block"
    return ""


def _computed_weight(layer: nn.Module) -> str:
    """Said of a layer whose weight is made anew at every call, so that dividing what it is now would be wrong."""
    module = type(layer).__module__
    if is_parametrized(layer):
        return "is parametrized (weight or spectral norm, ...): its weight is computed at every call"
    if module.startswith(("torch.ao.", "torch.nn.quantized", "torch.nn.qat")):
        return "is prepared for quantization, or quantized: elasticize first"
    for name in ("weight", "bias"):
        if f"{name}_orig" in layer._parameters:
            return f"has a {name} that pruning or an old-style norm computes at every call"
        if f"{name}_g" in layer._parameters and f"{name}_v" in layer._parameters:
            return f"has a {name} that weight norm computes at every call"
    return ""


def shared_parameters(network: nn.Module) -> dict[int, list[nn.Module]]:
    """{id of a parameter: the modules that hold it}, of parameters that more than one module holds."""
    owners: dict[int, list[nn.Module]] = defaultdict(list)
    for module in network.modules():
        for parameter in module._parameters.values():
            if parameter is not None and all(owner is not module for owner in owners[id(parameter)]):
                owners[id(parameter)].append(module)
    return {key: held for key, held in owners.items() if len(held) > 1}


def tie(block: nn.Module, shared: dict[int, list[nn.Module]]) -> str:
    """Why a block whose parameter another layer holds too is left; empty where it holds none."""
    for name, parameter in block.named_parameters():
        if id(parameter) in shared:
            return f"its {name} is shared with another layer: divided, the two would no longer be one"
    return ""


def read_by_parents(network: nn.Module) -> set[str]:
    """Names of children whose `weight` appears in their parent's `forward`, so that they must keep having one."""
    read = {kind: _read_by(kind) for kind in {type(module) for module in network.modules()}}
    return {f"{name}.{child}".lstrip(".") for name, parent in network.named_modules() for child in read[type(parent)]}


def _read_by(kind: type[nn.Module]) -> set[str]:
    """Attributes whose `weight` or `bias` the `forward` of this class reads."""
    try:
        source = inspect.getsource(kind.forward)
    except (OSError, TypeError):  # no source at hand: built in, or made at run time
        return set()
    return set(re.findall(r"self\.(\w+)\.(?:weight|bias)\b", source))


def kind_of_other_convolution(module: nn.Module) -> tuple[str, str] | None:
    """(kind, why it is left) of a convolution that is none over a map; None for every other module."""
    original = getattr(module, "original_name", type(module).__name__)  # of a scripted module
    if module.__class__.__module__.startswith("torch.jit") and "Conv" in original:
        return "scripted convolution", "a scripted layer cannot be divided: elasticize before scripting"
    if type(module).__module__.startswith("torch.ao.nn") and "Conv" in type(module).__name__:
        return "quantized convolution", "is prepared for quantization, or quantized: elasticize first"
    others: tuple[tuple[Any, str, str], ...] = (
        (nn.Conv1d, "1-D convolution", "runs over one axis: there is no map whose resolution could be divided"),
        (nn.Conv3d, "3-D convolution", "runs over three axes: maps of two are divided, not videos or volumes"),
        (nn.modules.conv._ConvTransposeNd, "transposed convolution", "changes the resolution"),
    )
    return next(((kind, reason) for types, kind, reason in others if isinstance(module, types)), None)
