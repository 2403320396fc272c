"""`restore`: from an elastic network back to the structure it was made from, every trained number in its old place."""

import copy
from typing import Any

import torch
from torch import nn

from elastic_cnn.surgery.elasticize import replace_module
from elastic_cnn.surgery.report import Conversion


def restore(network: Any, *, inplace: bool = False) -> nn.Module:
    """The base structure of a network that `elasticize` made elastic, with the elastic network's present weights.

    The inverse of the division of weights: right after `elasticize` it gives back the base network's function; after
    training it gives the same layers, all at full resolution (a starting point, not the same function).

    Raises `ValueError` where the network is not elastic, or holds trained resampling filters, which have no place in
    the base structure.
    """
    report = getattr(network, "elastic_report", None)
    if report is None:
        raise ValueError(f"{type(network).__name__} is not elastic: there is nothing to restore")
    for name, conversion in report.conversions.items():
        if "trained" in (conversion.spec.downsample, conversion.spec.upsample):
            raise ValueError(f"{name} holds trained resampling filters, which have no place in the base network")
    base: Any = network if inplace else copy.deepcopy(network)
    for name, conversion in report.conversions.items():
        elastic = base.get_submodule(name)
        replace_module(base, elastic, _undo(conversion, elastic))
    base.elastic_report = None
    base.elastic_spec = None
    return base


def _undo(conversion: Conversion, elastic: nn.Module) -> nn.Module:
    """The original block with the numbers of `elastic`.

    Number every entry of the original's tensors, convert that block likewise, and read where each number went.
    """
    numbered = copy.deepcopy(conversion.original).to_empty(device="cpu").double()
    shapes = {key: value.shape for key, value in numbered.state_dict().items() if value.is_floating_point()}
    sizes = [shape.numel() for shape in shapes.values()]
    with torch.no_grad():
        for key, ids in zip(shapes, torch.arange(float(sum(sizes)), dtype=torch.float64).split(sizes), strict=True):
            numbered.state_dict()[key].copy_(ids.view(shapes[key]))
    places = conversion.convert(numbered, conversion.spec).state_dict()  # where each number went
    trained = elastic.state_dict()
    reference = next(value for value in trained.values() if value.is_floating_point())
    values = torch.full((sum(sizes),), float("nan"), dtype=reference.dtype, device=reference.device)
    counters = {}
    for key, value in trained.items():
        if value.is_floating_point():
            values[places[key].flatten().long().to(values.device)] = value.detach().flatten()
        else:  # num_batches_tracked: the same in every branch
            counters[key.rpartition(".")[2]] = value
    restored = copy.deepcopy(conversion.original).to_empty(device=values.device)
    state = {key: part.view(shapes[key]) for key, part in zip(shapes, values.split(sizes), strict=True)}
    for key in restored.state_dict():
        if key not in state:
            state[key] = counters[key.rpartition(".")[2]]
    restored.load_state_dict(state)
    return restored
