"""What a checkpoint's card may ask for: a network of a plain size, built out of nothing but the checkpoint itself."""

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from elastic_cnn.text import wrong_class_name

ELSEWHERE = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "file", "url")
LARGEST = 10**7  # of a whole number among a network's arguments: no layer is as wide, no network as deep
DEEPEST = 20  # lists and mappings within each other
PLACES = ("hf-hub:", "hf_hub:", "local-dir:", "local_dir:")  # how timm's names of places begin


def check_arguments(network: str, kwargs: Mapping[str, Any]) -> None:
    """`ValueError` where a network's name or arguments would read files, connect, or name senseless sizes."""
    if ":" in network:
        raise ValueError(f"the network {network!r} names a place to load from; a checkpoint names a network by itself")
    for key, value in _walk(kwargs):
        if key in ELSEWHERE and value not in (None, False):
            raise ValueError(
                f"the network's argument {key}={value!r:.60} would load weights from elsewhere, and a checkpoint holds "
                "its own; leave the argument out"
            )
        if isinstance(value, str) and ("://" in value or value.startswith(PLACES)):
            raise ValueError(f"the network's argument {key}={value!r:.60} names a place to load from")
        if key.endswith("_rate") and isinstance(value, str | Mapping):
            raise ValueError(f"the network's argument {key}={value!r:.60} must be a number")
        if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= LARGEST):
            raise ValueError(
                f"the network's argument {key}={value!r:.60} is no number that a network can be built with"
            )


def _walk(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All values within, with the names that they bear."""
    if depth > DEEPEST:
        raise ValueError("the network's arguments are nested too deeply")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name), inner
            yield from _walk(inner, str(name), depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield key, inner
            yield from _walk(inner, key, depth + 1)


def check_classes(kwargs: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """`ValueError` where there are class names, but not one for each output, or one that is none."""
    if wrong := wrong_class_name(classes):
        raise ValueError(wrong)
    outputs = kwargs.get("num_classes")
    if classes and isinstance(outputs, int) and len(classes) != outputs:
        raise ValueError(f"the card names {len(classes)} classes for {outputs} outputs")


@contextmanager
def no_larger_than(tensors: int, elements: int) -> Iterator[None]:
    """Within the block no network is built (by this thread) that could not be one of so many tensors and elements.

    Surgery and new heads leave tensors behind, so there is room for some times as many. `ValueError` beyond that,
    before the memory is used.
    """
    made, most, thread = 0, 4 * tensors + 1000, threading.get_ident()
    filled, room = 0, 8 * elements + 3 * LARGEST  # of all of them together

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made, filled
        if parameter is None or threading.get_ident() != thread:
            return
        made, filled = made + 1, filled + parameter.numel()
        if made > most or parameter.numel() > 4 * elements + LARGEST or filled > room:
            raise ValueError(f"it describes a larger network than its {tensors} tensors could be of")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
