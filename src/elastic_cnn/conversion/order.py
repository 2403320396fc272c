"""Order: which channels of a block go to the low resolution. Those that are missed least when they are computed there.

The channels of a section (`surgery/sections.py`) may stand in any order. At half resolution, channel j is off by
e_j = z_j - U(z_j computed on D(x)), and what reads the channels, with weights W (in units of the norm behind it,
where there is one), by sum_j W_j e_j. A kernel wider than one position can make up a part of it from the finer detail
of the channels that stay at full resolution, e_h: what is left in the mean square is

    tr(W' W (E_ll - E_lh E_hh^-1 E_hl)),    E = mean e e'

The channels that stay are chosen one after another, each time the one that takes most of it away. (For a 1 x 1 kernel,
which sees no detail, E is taken as diagonal.) The order is a permutation: the network computes what it did.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.conversion.probe import Call, norms_after
from elastic_cnn.nn import ElasticSpec
from elastic_cnn.nn.resample import crop, make_downsample, make_upsample
from elastic_cnn.surgery.report import Conversion
from elastic_cnn.surgery.sections import Section, layer, permute, unit, width

Errors = dict[str, list[Tensor]]  # of each section of each block: what each unit at full resolution spares, (units,)


@torch.no_grad()
def order_channels(
    network: nn.Module, blocks: Mapping[str, Conversion], images: Sequence[Tensor], *, move: bool = True
) -> Errors:
    """Put the channels of each block of `network` into order, in place; returns their errors in the new order.

    In eval mode; images: batches (N, C, H, W). blocks: {name: how it will be made elastic}; the errors are those at
    the first of its lower resolutions: of each unit what it takes away by standing at full resolution behind those
    before it. move: False leaves all where it is.
    `ValueError` where a block does not run.
    """
    sections = {name: how.sections(network.get_submodule(name), how.spec) for name, how in blocks.items()}
    measured = _measure(network, sections, {name: how.spec for name, how in blocks.items()}, images)
    readers = [
        layer(network.get_submodule(n), s.last) for n, found in sections.items() for s in found if s.last is not None
    ]
    norms = norms_after(network, readers, Call((images[0][:1],), {}))
    errors: Errors = {}
    for name, found in sections.items():
        block, errors[name] = network.get_submodule(name), []
        for number, section in enumerate(found):
            moment = measured[name, number]  # (channels, channels)
            weight = torch.eye(len(moment)).to(moment)
            if section.last is not None:
                reader = layer(block, section.last)
                weight = _reading_weight(reader, norms.get(reader)).to(moment)
            each = moment.diagonal() * weight.diagonal()
            size = unit(block, section)
            if size is not None:
                units = width(layer(block, section.layers[0])) // size
                if reader.weight[0, 0].numel() > 1:
                    order, each = arrange(moment, weight, units, move=move)
                else:
                    each = each.unflatten(0, (units, -1)).sum(1)
                    order = each.argsort(descending=True, stable=True)
                    each = each[order] if move else each
                if move:
                    permute(block, section, order)
            errors[name].append(each)
    return errors


def _measure(
    network: nn.Module,
    sections: Mapping[str, list[Section]],
    specs: Mapping[str, ElasticSpec],
    images: Sequence[Tensor],
) -> dict[tuple[str, int], Tensor]:
    """{(block, number of the section): mean products of the errors of its channels, (channels, channels)}."""
    totals: dict[tuple[str, int], Any] = {}
    handles = []
    for name, found in sections.items():
        block = network.get_submodule(name)
        for number, section in enumerate(found):
            entry = layer(block, section.layers[0] if section.layers else str(section.last))
            key = (name, number)
            totals[key] = 0

            def measure(_: Any, args: Any, key: Any = key, block: Any = block, section: Any = section) -> None:
                if torch._C._functorch.is_batchedtensor(args[0]):
                    raise ValueError(
                        f"{key[0]} runs under torch.vmap, where what it sees of the photos cannot be kept: "
                        "call it on a batch instead, or make the network elastic with elasticize"
                    )
                totals[key] = totals[key] + _products_of_errors(block, section, specs[key[0]], args[0])

            handles.append(entry.register_forward_pre_hook(measure))
    try:
        for batch in images:
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    if silent := [name for (name, _), total in totals.items() if isinstance(total, int)]:
        raise ValueError(f"{silent[0]} does not run on the photos: its channels cannot be ordered")
    count = sum(len(batch) for batch in images)
    return {key: total / count for key, total in totals.items()}


def _products_of_errors(block: nn.Module, section: Section, spec: ElasticSpec, x: Tensor) -> Tensor:
    """(channels, channels): products of the errors at low resolution of what the section's layers make of x, mean over
    positions, summed over the batch."""
    if section.channels_last:
        x = x.permute(0, 3, 1, 2)
    scale = spec.scales[1]
    whole = _run(block, section, x)
    options = {"device": x.device, "dtype": x.dtype}
    low = _run(block, section, make_downsample(spec.downsample, scale, x.shape[1], **options)(x))
    up = make_upsample(spec.upsample if spec.changes_resolution else "identity", scale, low.shape[1], **options)
    height, width = whole.shape[-2:]
    off = (whole - crop(up(low), height, width)).permute(0, 2, 3, 1).flatten(0, 2)
    return off.T @ off / (height * width)


def _run(block: nn.Module, section: Section, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, channels, H, W). Layers' own `forward`: this runs within a hook of the first."""
    x = x.permute(0, 2, 3, 1) if section.channels_last else x.clone()
    for name in section.layers:
        x = layer(block, name).forward(x)
    return x.permute(0, 3, 1, 2) if section.channels_last else x


def _reading_weight(reader: Any, norm: Any) -> Tensor:
    """(channels, channels): W' W of the layer that reads them, in units of the norm behind it."""
    weight = reader.weight.flatten(2) if reader.weight.dim() > 2 else reader.weight[..., None]  # (O, C, kernel)
    if norm is not None and norm.running_var is not None:
        gain = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        weight = weight * gain[:, None, None]
    rows = weight.transpose(0, 1).flatten(1)
    return rows @ rows.T


def arrange(moment: Tensor, weight: Tensor, units: int, *, move: bool = True) -> tuple[Tensor, Tensor]:
    """(units,) in which order they are best kept at full resolution, and what each then takes away of the error.

    moment: E, mean products of the channels' errors; weight: W' W, both (channels, channels); a unit is as many
    neighbouring channels. move: False takes the units as they stand.
    """
    moment, weight = moment.double(), weight.double()
    size = len(moment) // units
    seen = moment @ weight @ moment
    floor = 1e-6 * moment.diagonal().mean().clamp_min(1e-30) * torch.eye(size).to(moment)
    left = torch.ones(units, dtype=torch.bool, device=moment.device)
    order, spared = [], []
    for step in range(units):
        own = _blocks(moment, units) + floor  # (units, size, size)
        gains = torch.linalg.solve(own, _blocks(seen, units)).diagonal(dim1=1, dim2=2).sum(1)
        best = int(torch.where(left, gains, -torch.inf).argmax()) if move else step
        order.append(best)
        spared.append(gains[best])
        left[best] = False
        column = moment[:, best * size : (best + 1) * size].clone()  # (channels, size)
        solved = column @ torch.linalg.inv(own[best])
        read = weight @ column
        cross = moment @ read @ solved.T
        seen = seen - cross - cross.T + solved @ (column.T @ read) @ solved.T
        moment = moment - solved @ column.T
    return torch.tensor(order, device=moment.device), torch.stack(spared).clamp_min(0).float()


def _blocks(matrix: Tensor, units: int) -> Tensor:
    """(channels, channels) -> the units' own parts of it, (units, size, size)."""
    size = len(matrix) // units
    return matrix.view(units, size, units, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
