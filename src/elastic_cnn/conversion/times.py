"""Measured time of networks in the form in which they will be deployed, on this machine."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from elastic_cnn.measure.medians import MedianInterval, ratio_of
from elastic_cnn.measure.turns import in_turns, timer

FORMS = {
    "native": ("native", "float32"),
    "bf16": ("optimized", "bfloat16"),
    "openvino": ("openvino", "float32"),
}
ROUNDS = 15


def time_ratios(networks: Sequence[nn.Module], base: nn.Module, image: Tensor, form: str) -> list[MedianInterval]:
    """Seconds of each network over the base's, in turns on `image` (1, C, H, W); medians with 95% intervals.

    form: a key of `FORMS`. `ValueError` where that cannot be had here, or for these networks.
    """
    from elastic_cnn.analysis.benchmark.forms import Subject, Unavailable, inference_run

    kind, dtype = FORMS[form]
    subject = Subject("", kind, "inference", 1, image.shape[-1], dtype, torch.get_num_threads())
    placed = image.to(getattr(torch, dtype), memory_format=torch.channels_last)
    try:
        runs = [inference_run(_placed(network, placed.dtype), subject, placed) for network in (base, *networks)]
    except Unavailable as error:
        raise ValueError(f"the form {form!r} cannot be timed here: {error}") from error
    seconds = in_turns([timer(run) for run in runs], ROUNDS, warm_up=3, reverse=True)
    return [ratio_of(own, seconds[0]) for own in seconds[1:]]


def _placed(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(network).eval().to(dtype).to(memory_format=torch.channels_last)


def alike(before: Mapping[str, int], after: Mapping[str, int], kinds: Mapping[str, str]) -> list[list[str]]:
    """Blocks of one kind that cost the same, in both forms: they take the same time."""
    groups: dict[tuple[str, int, int], list[str]] = {}
    for name, kind in kinds.items():
        groups.setdefault((kind, before[name], after[name]), []).append(name)
    return list(groups.values())
