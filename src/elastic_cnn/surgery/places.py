"""Where modules stand in a network: the resolution that each works at, measured once on an example input.

Surgery decides by these places, so the same network is always converted alike, whatever images come later.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elastic_cnn.nn.example import Example, likely_shapes, recorded_example
from elastic_cnn.nn.trial import first_map, run_trial

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
    """Channels, height and width of the image that a network takes, as it tells itself; not tried out."""
    known = recorded_example(network)
    images = [tensor for tensor in known.tensors() if tensor.dim() in (3, 4)] if known is not None else []
    shape = tuple(images[0].shape[-3:]) if images else likely_shapes(network)[0]
    return (shape[0], shape[1], shape[2])


def measure_places(
    network: nn.Module, wanted: Callable[[nn.Module], bool], example: Any = None
) -> tuple[dict[str, Place], Example]:
    """{name: place} of the wanted modules that ran on 4-dimensional maps, in order of execution, and the example used.

    example: as `Example.of` takes it; by default what the network tells of itself. Nothing is computed for real where
    the meta device can run the network. `CannotRun` (a `ValueError`) where it does not run.
    """
    places: dict[str, Place] = {}

    def observe(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            before, after = first_map(inputs), first_map(output)
            if before is not None and after is not None and name not in places:
                places[name] = Place(_size(before), _size(after))

        return hook

    def watch(twin: nn.Module) -> None:
        places.clear()
        for name, module in twin.named_modules():
            if wanted(module):
                module.register_forward_hook(observe(name))

    used, _ = run_trial(network, example, watch)
    return places, used


def _size(value: Tensor) -> Size:
    return (value.shape[-2], value.shape[-1])
