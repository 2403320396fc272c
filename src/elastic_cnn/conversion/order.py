"""Order: which channels of a block go to the low resolution. Those whose maps change least when computed there.

The channels of a section (`surgery/sections.py`) may stand in any order. At half resolution, channel j is off by

    mean |z_j - U(z_j computed on D(x))|^2  times  |the weights that read it|^2

where the convolution that reads it is followed by a norm, in units of the norm's output. The channels that are off most
come first, where the high resolution takes them; the network computes what it did.
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

Errors = dict[str, list[Tensor]]  # of each section of each block: of its units, (units,), as they stand


@torch.no_grad()
def order_channels(
    network: nn.Module, blocks: Mapping[str, Conversion], images: Sequence[Tensor], *, move: bool = True
) -> Errors:
    """Put the channels of each block of `network` into order, in place; returns their errors in the new order.

    In eval mode; images: batches (N, C, H, W). blocks: {name: how it will be made elastic}; the errors are those at
    the first of its lower resolutions. move: False leaves all where it is and gives the errors as they stand.
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
            each = measured[name, number]
            if section.last is not None:
                reader = layer(block, section.last)
                each = each * _reading_weight(reader, norms.get(reader))
            size = unit(block, section)
            if size is not None:
                each = each.unflatten(0, (width(layer(block, section.layers[0])) // size, -1)).sum(1)
                if move:
                    order = each.argsort(descending=True, stable=True)
                    permute(block, section, order)
                    each = each[order]
            errors[name].append(each)
    return errors


def _measure(
    network: nn.Module,
    sections: Mapping[str, list[Section]],
    specs: Mapping[str, ElasticSpec],
    images: Sequence[Tensor],
) -> dict[tuple[str, int], Tensor]:
    """{(block, number of the section): mean squared error of each of its channels, (channels,)}."""
    totals: dict[tuple[str, int], Any] = {}
    handles = []
    for name, found in sections.items():
        block = network.get_submodule(name)
        for number, section in enumerate(found):
            entry = layer(block, section.layers[0] if section.layers else str(section.last))
            key = (name, number)
            totals[key] = 0

            def measure(_: Any, args: Any, key: Any = key, block: Any = block, section: Any = section) -> None:
                totals[key] = totals[key] + _channel_errors(block, section, specs[key[0]], args[0])

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


def _channel_errors(block: nn.Module, section: Section, spec: ElasticSpec, x: Tensor) -> Tensor:
    """(channels,): squared error at low resolution of what the section's layers make of x, mean over positions, summed
    over the batch."""
    if section.channels_last:
        x = x.permute(0, 3, 1, 2)
    scale = spec.scales[1]
    whole = _run(block, section, x)
    options = {"device": x.device, "dtype": x.dtype}
    low = _run(block, section, make_downsample(spec.downsample, scale, x.shape[1], **options)(x))
    up = make_upsample(spec.upsample if spec.changes_resolution else "identity", scale, low.shape[1], **options)
    return (whole - crop(up(low), whole.shape[-2], whole.shape[-1])).square().mean((2, 3)).sum(0)


def _run(block: nn.Module, section: Section, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, channels, H, W). Layers' own `forward`: this runs within a hook of the first."""
    x = x.permute(0, 2, 3, 1) if section.channels_last else x.clone()
    for name in section.layers:
        x = layer(block, name).forward(x)
    return x.permute(0, 3, 1, 2) if section.channels_last else x


def _reading_weight(reader: Any, norm: Any) -> Tensor:
    """(channels,): how much of each channel's square the layer that reads it passes on, through the norm behind it."""
    weight = reader.weight.flatten(2) if reader.weight.dim() > 2 else reader.weight[..., None]  # (O, C, kernel)
    weight = weight.square().sum(2)
    if norm is not None and norm.running_var is not None:
        gain = (
            1 / (norm.running_var + norm.eps) if norm.weight is None else norm.weight**2 / (norm.running_var + norm.eps)
        )
        weight = weight * gain[:, None]
    return weight.sum(0)
