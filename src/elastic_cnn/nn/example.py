"""What a network is called with: an example of its inputs, given by the user or told by the network itself.

One value stands for every way of calling a network: `Example((images,), {})` for most, several arguments, keywords, or
lists of tensors for others. Only shapes and kinds matter; floating-point values are drawn from a seeded normal.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

SIDE = 224  # of a square image, where nothing tells another
OTHER_SIDES = (256, 32, 28, 64, 96, 128, 299, 384, 512)  # fixed sizes that are common, tried where 224 does not run
SMALL_SIDE = 64  # enough for a trial of a network that takes any size


@dataclass(frozen=True)
class Example:
    """The arguments of one call of a network."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> "Example":
        """From what a user gives: a tensor; a tuple, the arguments in order; a dict, the arguments by name; a list, one
        argument (detectors take lists of images); whole numbers (C, H, W), one image of that shape.

        `ValueError` for anything else.
        """
        if isinstance(value, Example):
            return value
        if isinstance(value, Tensor):
            return cls((value,))
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            return cls((), dict(value))
        if isinstance(value, (tuple, list)) and _is_shape(value):
            return cls((make_tensor((1, *value)),))
        if isinstance(value, tuple) and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            return cls(value)
        if isinstance(value, list) and any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            return cls((value,))
        raise ValueError(
            "example must be a tensor, a tuple of the network's arguments, a dict of them by name, a list of images, "
            f"or (channels, height, width), got {value!r:.80}"
        )

    def call(self, network: nn.Module) -> Any:
        """`network(*args, **kwargs)`."""
        return network(*self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        """Every tensor in it, in order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Example":
        """The same with `change` applied to every tensor."""
        both = (self.args, self.kwargs)
        args, kwargs = tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, both)
        return Example(args, kwargs)

    def like(self, network: nn.Module) -> "Example":
        """On the device of `network` and, where values are floating-point, in its precision."""
        device, dtype = placement(network)

        def place(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

        return self.map(place)

    def describe(self) -> dict[str, Any]:
        """Shapes and kinds in JSON values. `ValueError` where an argument is neither tensor nor number nor text."""
        return {"args": [_describe(value) for value in self.args], "kwargs": _describe(self.kwargs)}

    @classmethod
    def from_description(cls, description: Any) -> "Example":
        """The inverse of `describe`, values drawn anew. `ValueError` where it is not such a description."""
        try:
            _check_total(description)
            args = tuple(_rebuild(value) for value in description["args"])
            return cls(args, {str(name): _rebuild(value) for name, value in description["kwargs"].items()})
        except (KeyError, TypeError, AttributeError, RuntimeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not the description of an example input: {error!r:.200}") from error

    def __str__(self) -> str:
        """`(1, 3, 224, 224)`, or the shapes of several tensors."""
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in self.tensors())
        return shapes or repr((self.args, self.kwargs))


MOST_NUMBERS = 2**25  # that a description may name in all: two pictures of 2300 x 2300, 128 MB


def make_tensor(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A seeded tensor that a network can be called with: normal numbers, bytes of a picture, zeros, or true."""
    generator = torch.Generator("cpu").manual_seed(0)
    options: dict[str, Any] = {"device": "cpu"}  # also where networks are being built on the meta device
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator, **options).to(dtype)
    if dtype == torch.uint8:
        return torch.randint(0, 256, tuple(shape), dtype=dtype, generator=generator, **options)
    make = torch.ones if dtype == torch.bool else torch.zeros
    return make(tuple(shape), dtype=dtype, **options)


def _is_shape(value: Sequence[Any]) -> bool:
    return len(value) == 3 and all(type(number) is int and number > 0 for number in value)


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    if isinstance(value, (list, tuple)):
        return {"list" if isinstance(value, list) else "tuple": [_describe(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _describe(item) for name, item in value.items()}
    raise ValueError(f"an example input of {type(value).__name__} cannot be described")


def _check_total(description: Any) -> None:
    """`TypeError` where the tensors that a description names would hold too many numbers; before any is made."""
    waiting, total = [description], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "tensor" in value and "dtype" in value:
            total += math.prod(max(1, int(side)) for side in value["tensor"])
        elif isinstance(value, (dict, list, tuple)):
            waiting += value.values() if isinstance(value, dict) else value
        if total > MOST_NUMBERS:
            raise TypeError(f"its tensors hold more than {MOST_NUMBERS} numbers")


def _rebuild(value: Any) -> Any:
    if "tensor" in value and "dtype" in value:
        shape, dtype = value["tensor"], getattr(torch, value["dtype"])
        if not isinstance(dtype, torch.dtype) or not all(type(side) is int and side >= 0 for side in shape):
            raise TypeError(f"no tensor of shape {shape} and dtype {value['dtype']}")
        return make_tensor(shape, dtype)
    if set(value) == {"value"}:
        return value["value"]
    if set(value) == {"list"}:
        return [_rebuild(item) for item in value["list"]]
    if set(value) == {"tuple"}:
        return tuple(_rebuild(item) for item in value["tuple"])
    return {name: _rebuild(item) for name, item in value.items()}


def placement(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a network's first floating-point parameter or buffer; CPU and float32 without one."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def recorded_example(network: nn.Module) -> Example | None:
    """The example that surgery wrote down on the network (`elastic_example`), None where there is none."""
    found = getattr(network, "elastic_example", None)
    return found if isinstance(found, Example) else None


def likely_shapes(network: nn.Module) -> list[tuple[int, int, int]]:
    """(channels, height, width) that a network of one image is likely to take, the likeliest first.

    What the network's own configuration says (timm's `pretrained_cfg`, Hugging Face's `config`, an `img_size`), then
    the channels of its first convolution; 224 pixels, then other common sizes.
    """
    stated_channels, sides = _stated(network)
    first = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    channels = list(dict.fromkeys(c for c in (stated_channels, first, 3, 1) if c))
    others = [sides] if sides else []
    others += [(side, side) for side in (SIDE, *OTHER_SIDES)]
    shapes = [(c, *side) for side in others[:2] for c in channels]
    shapes += [(c, *side) for side in others[2:] for c in channels[:2]]
    return list(dict.fromkeys(shapes))


def _stated(network: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Channels and (height, width) from the network's own configuration; None for what it does not say."""
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(network, name, None)
        size = config.get("input_size") if isinstance(config, Mapping) else getattr(config, "input_size", None)
        if isinstance(size, (tuple, list)) and _is_shape(size):
            return size[0], (size[1], size[2])
    for holder in (getattr(network, "config", None), network):
        channels = getattr(holder, "num_channels", None)
        for name in ("image_size", "img_size", "input_size"):
            side = getattr(holder, name, None)
            sides = (side, side) if type(side) is int else side
            if isinstance(sides, (tuple, list)) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides):
                return channels if type(channels) is int else None, (sides[0], sides[1])
    return None, None


def candidate_examples(network: nn.Module, given: Any = None) -> Iterator[Example]:
    """Examples to try, the likeliest first: the one `given` (as `Example.of` takes it), else the one recorded on the
    network, else images of the likely shapes; alone where given or recorded."""
    known = recorded_example(network) if given is None else Example.of(given)
    if known is not None:
        yield known
        return
    for shape in likely_shapes(network):
        yield Example((make_tensor((1, *shape)),))
