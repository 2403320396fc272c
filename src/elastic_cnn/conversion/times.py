"""Measured time of networks in the form in which they will be deployed, on this machine."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from elastic_cnn.measure.medians import MedianInterval, ratio_of
from elastic_cnn.measure.turns import in_turns, timer
from elastic_cnn.nn import channels_last, in_precision

FORMS = {
    "native": ("native", "float32"),
    "bf16": ("optimized", "bfloat16"),
    "openvino": ("openvino", "float32"),
}
ROUNDS = 15
SIDES = 8  # larger inputs that are timed


def time_ratios(networks: Sequence[nn.Module], base: nn.Module, image: Tensor, form: str) -> list[MedianInterval]:
    """Seconds of each network over the base's, in turns on `image` (1, C, H, W); medians with 95% intervals.

    form: a key of `FORMS`. `ValueError` where that cannot be had here, or for these networks.
    """
    return _ratios([(base, image), *((network, image) for network in networks)], form)


def equal_time_side(
    network: nn.Module, base: nn.Module, shape: tuple[int, int, int], form: str
) -> tuple[int, MedianInterval]:
    """The largest height of an input on which `network` takes no longer than `base` on `shape` (channels, height,
    width), and its time over the base's there. The width grows along; heights are tried in steps of about a twentieth.

    `ValueError` where it takes longer on the next larger input already, and as `time_ratios`.
    """
    channels, height, width = shape
    step = 8 * max(1, round(height / 160))
    heights = [height + step * number for number in range(1, SIDES + 1)]
    inputs = [torch.randn(1, channels, h, round(h * width / height)) for h in (height, *heights)]
    ratios = _ratios([(base, inputs[0]), *((network, image) for image in inputs[1:])], form)
    within = [(h, ratio) for h, ratio in zip(heights, ratios, strict=True) if ratio.median <= 1]
    if not within:
        raise ValueError(
            f"in the form {form!r} the network takes {ratios[0].median:.2f} of its base's time at {heights[0]} pixels, "
            f"where the base is given {height}: its time buys no larger input"
        )
    return within[-1]


def _ratios(subjects: Sequence[tuple[nn.Module, Tensor]], form: str) -> list[MedianInterval]:
    """Seconds of each network on its image over the first one's."""
    from elastic_cnn.analysis.benchmark.forms import Subject, Unavailable, inference_run

    kind, dtype = FORMS[form]
    runs = []
    for network, image in subjects:
        subject = Subject("", kind, "inference", 1, image.shape[-1], dtype, torch.get_num_threads())
        placed = image.to(getattr(torch, dtype), memory_format=torch.channels_last)
        try:
            runs.append(inference_run(_placed(network, placed.dtype), subject, placed))
        except Unavailable as error:
            raise ValueError(f"the form {form!r} cannot be timed here: {error}") from error
    seconds = in_turns([timer(run) for run in runs], ROUNDS, warm_up=3, reverse=True)
    return [ratio_of(own, seconds[0]) for own in seconds[1:]]


def _placed(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    return channels_last(in_precision(copy.deepcopy(network).eval(), dtype))


def alike(before: Mapping[str, int], after: Mapping[str, int], kinds: Mapping[str, str]) -> list[list[str]]:
    """Blocks of one kind that cost the same, in both forms: they take the same time."""
    groups: dict[tuple[str, int, int], list[str]] = {}
    for name, kind in kinds.items():
        groups.setdefault((kind, before[name], after[name]), []).append(name)
    return list(groups.values())
