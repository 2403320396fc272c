"""Where modules stand in a network: the resolution that each works at, measured once at the network's own input size.

Surgery decides by these places, so the same network is always converted alike, whatever images come later.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Size = tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Height and width of a module's first map, in and out, at the network's own input size."""

    input: Size
    output: Size

    @property
    def keeps_resolution(self) -> bool:
        return self.input == self.output


def input_size(network: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width that the network was designed for: timm's configuration, 3 x 224 x 224 without one."""
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    size = config.get("input_size", (3, 224, 224)) if isinstance(config, dict) else (3, 224, 224)
    return (int(size[0]), int(size[1]), int(size[2]))


def measure_places(
    network: nn.Module, wanted: Callable[[nn.Module], bool], size: Sequence[int] | None = None
) -> dict[str, Place]:
    """{name: place} of the wanted modules that ran on 4-dimensional maps, in order of execution.

    Runs a copy of the network on the meta device (nothing is computed for real), on the CPU where an operator cannot.
    `ValueError` where neither runs.
    """
    shape = (1, *(size or input_size(network)))
    failure: Exception | None = None
    for device in ("meta", "cpu"):
        try:
            return _run(copy.deepcopy(network).to(device).eval(), wanted, shape, device)
        except (RuntimeError, NotImplementedError, AssertionError, ValueError, TypeError) as error:
            failure = error
    raise ValueError(f"{type(network).__name__} does not run on an input of {shape}: {failure}") from failure


def _run(
    network: nn.Module, wanted: Callable[[nn.Module], bool], shape: Sequence[int], device: str
) -> dict[str, Place]:
    places: dict[str, Place] = {}

    def observe(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            before, after = _first_map(inputs), _first_map(output)
            if before is not None and after is not None and name not in places:
                places[name] = Place(_size(before), _size(after))

        return hook

    for name, module in network.named_modules():
        if wanted(module):
            module.register_forward_hook(observe(name))
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        network(torch.zeros(tuple(shape), device=device, dtype=dtype))
    return places


def _first_map(value: Any) -> Tensor | None:
    """The first 4-dimensional tensor in a module's inputs or output."""
    if isinstance(value, Tensor):
        return value if value.dim() == 4 else None
    if isinstance(value, (tuple, list)):
        return next((found for item in value if (found := _first_map(item)) is not None), None)
    return None


def _size(value: Tensor) -> Size:
    return (value.shape[-2], value.shape[-1])
