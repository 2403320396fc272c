"""`restore`: from an elastic network back to the structure it was made from, every trained number in its old place."""

import copy
import itertools
import warnings
from typing import Any

import torch
from torch import nn

from elastic_cnn.nn.trial import copy_module
from elastic_cnn.surgery.replace import Holders
from elastic_cnn.surgery.report import Conversion


def restore(network: Any, *, inplace: bool = False) -> nn.Module:
    """The base structure of a network that `elasticize` made elastic, with the elastic network's present weights.

    The inverse of the division of weights: right after `elasticize` it gives back the base network's function; after
    training it gives the same layers, all at full resolution (a starting point, not the same function). Of a network
    that `convert` made, channels stay in the order that it chose, and a warning says so where it refitted the weights.

    Raises `ValueError` where the network is not elastic, or holds trained resampling filters, which have no place in
    the base structure.
    """
    report = getattr(network, "elastic_report", None)
    if report is None:
        raise ValueError(f"{type(network).__name__} is not elastic: there is nothing to restore")
    if report.refitted:
        warnings.warn(
            "the weights were refitted to low resolution when the network was converted: the restored network has the "
            "structure of its base, and not its function",
            stacklevel=2,
        )
    for name, conversion in report.conversions.items():
        if "trained" in (conversion.spec.downsample, conversion.spec.upsample):
            raise ValueError(f"{name} holds trained resampling filters, which have no place in the base network")
    base: Any = network if inplace else copy_module(network)
    blocks = {name: base.get_submodule(name) for name in report.conversions}
    holders = Holders(blocks.values(), base)
    for name, conversion in report.conversions.items():
        holders.replace(blocks[name], _undo(name, conversion, blocks[name]))
    base.elastic_report = None
    base.elastic_spec = None
    return base


def _undo(name: str, conversion: Conversion, elastic: nn.Module) -> nn.Module:
    """The original block with the numbers of `elastic`.

    Number every entry of the original's tensors, convert that block likewise, and read where each number went. Numbers
    keep the precision that they have now, and norms the mode: frozen ones stay frozen.
    """
    numbered = copy.deepcopy(conversion.original).to_empty(device="cpu").double()
    shapes = {key: value.shape for key, value in numbered.state_dict().items() if value.is_floating_point()}
    sizes = [shape.numel() for shape in shapes.values()]
    with torch.no_grad():
        for key, ids in zip(shapes, torch.arange(float(sum(sizes)), dtype=torch.float64).split(sizes), strict=True):
            numbered.state_dict()[key].copy_(ids.view(shapes[key]))
    places = conversion.convert(numbered, conversion.spec).state_dict()  # where each number went
    trained = elastic.state_dict()
    if set(places) != set(trained):
        raise ValueError(f"{name} is not as elasticize made it: {sorted(set(places) ^ set(trained))[0]} differs")
    device = next((value.device for value in trained.values()), torch.device("cpu"))
    values = torch.full((sum(sizes),), float("nan"), dtype=torch.float64, device=device)  # holds every dtype exactly
    found = torch.zeros(len(values), dtype=torch.bool)
    dtypes: list[tuple[int, torch.dtype]] = []  # (a number of the original, its dtype now)
    counters = {}
    for key, value in trained.items():
        if value.is_floating_point():
            ids = places[key].flatten().long()
            values[ids.to(device)] = value.detach().flatten().double()
            found[ids] = True
            dtypes += [(int(ids[0]), value.dtype)] if len(ids) else []
        else:  # num_batches_tracked: the same in every branch
            counters[key.rpartition(".")[2]] = value
    if not bool(found.all()):
        raise ValueError(f"{name} does not hold every number of the original: it cannot be restored")
    restored = copy.deepcopy(conversion.original).to_empty(device=device)
    starts = dict(zip(shapes, itertools.accumulate(sizes, initial=0), strict=False))  # one more start than shapes
    state = {key: part.view(shapes[key]) for key, part in zip(shapes, values.split(sizes), strict=True)}
    for key, tensor in [*restored.named_parameters(), *restored.named_buffers()]:
        if key in state and state[key].numel():
            dtype = next(dtype for first, dtype in dtypes if starts[key] <= first < starts[key] + state[key].numel())
            tensor.data = tensor.data.to(dtype)
    for key in restored.state_dict():
        if key not in state:
            state[key] = counters[key.rpartition(".")[2]]
    restored.load_state_dict(state)
    return restored
