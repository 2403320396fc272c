"""The resolution that each module of a network works at, measured once on an example input.

Surgery decides by them, so the same network is always converted alike, whatever images come later.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from elastic_cnn.nn.example import Example, likely_shapes, recorded_example
from elastic_cnn.nn.trial import first_map, run_trial

Size = tuple[int, int]


@dataclass(frozen=True)
class MapSizes:
    """Height and width of a module's map, in and out, at its first call; whether every call keeps them."""

    input: Size
    output: Size
    keeps_resolution: bool


@dataclass(frozen=True)
class Survey:
    """What a run of a network on an example showed of the modules that were watched.

    sizes: {name: `MapSizes`} of those that ran on maps `(N, C, H, W)`, linear layers on `(N, H, W, C)`, in the order in
    which they ended. others: {name: shape} of those that ran on something else. image: height and width of the input.
    guessed: whether it is another input than the network told first.
    """

    sizes: dict[str, MapSizes]
    others: dict[str, tuple[int, ...]]
    example: Example
    image: Size | None
    guessed: bool


def input_size(network: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of the image that a network takes, as it tells itself; not tried out."""
    known = recorded_example(network)
    images = [tensor for tensor in known.tensors() if tensor.dim() in (3, 4)] if known is not None else []
    shape = tuple(images[0].shape[-3:]) if images else likely_shapes(network)[0]
    return (shape[0], shape[1], shape[2])


def measure_resolutions(network: nn.Module, wanted: Callable[[nn.Module], bool], example: Any = None) -> Survey:
    """The sizes of the wanted modules' maps, seen in one run of the network.

    example: as `Example.of` takes it; by default what the network tells of itself. Nothing is computed for real where
    the meta device can run the network. `CannotRun` (a `ValueError`) where it does not run.
    """
    sizes: dict[str, MapSizes] = {}
    others: dict[str, tuple[int, ...]] = {}

    def observe(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            before, after = first_map(inputs), first_map(output)
            if before is None or after is None:
                tensor = next((value for value in inputs if isinstance(value, Tensor)), None)
                others.setdefault(name, () if tensor is None else tuple(tensor.shape))
                return
            sides = (_size(before, module), _size(after, module))
            if name in sizes:
                sizes[name] = replace(
                    sizes[name], keeps_resolution=sizes[name].keeps_resolution and sides[0] == sides[1]
                )
            else:
                sizes[name] = MapSizes(*sides, keeps_resolution=sides[0] == sides[1])

        return hook

    def watch(twin: nn.Module) -> None:
        sizes.clear()
        others.clear()
        for name, module in twin.named_modules():
            if wanted(module):
                module.register_forward_hook(observe(name))

    used, _ = run_trial(network, example, watch)
    image = next((tensor for tensor in used.tensors() if tensor.dim() in (3, 4)), None)
    told = example is not None or (image is not None and tuple(image.shape[1:]) == likely_shapes(network)[0])
    size = None if image is None else (image.shape[-2], image.shape[-1])
    return Survey(sizes, others, used, size, guessed=not told)


def _size(value: Tensor, module: nn.Module) -> Size:
    if isinstance(module, nn.Linear):  # (N, H, W, C)
        return (value.shape[1], value.shape[2])
    return (value.shape[-2], value.shape[-1])
