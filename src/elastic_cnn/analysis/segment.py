"""Class masks of photos of any size: whole, or in tiles that keep within a bound of memory.

A tile is cut with a margin of context on each side that is computed and thrown away, so that every pixel is predicted
once, from a place inside its tile. Nothing of the photo's size is held but the photo and its mask (4 bytes a pixel).
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torchvision.transforms.v2 import functional as F

from elastic_cnn.data.mask_transforms import normalize
from elastic_cnn.data.transforms import Picture
from elastic_cnn.nn.compare import require_finite
from elastic_cnn.zoo.checkpoint import InputSpec

STEP = 32  # tiles are multiples of the stride of the deepest stage
SMALLEST = 4 * STEP
# libraries' work space on top of the tensors: a factor, and bytes besides; measured: see docs/segmentation.md
HEADROOM, WORK_SPACE = 1.5, 40 * 2**20


@dataclass(frozen=True)
class Tile:
    """What is computed (`outer`) and what of it is kept (`inner`): (top, left, bottom, right) in the photo."""

    outer: tuple[int, int, int, int]
    inner: tuple[int, int, int, int]


def tiles(height: int, width: int, tile: int, margin: int) -> Iterator[Tile]:
    """Tiles of at most `tile` pixels a side whose inner parts cover the photo, each pixel once.

    Inner parts lie `margin` pixels inside their tile but for the photo's border. `ValueError` where none is.
    """
    if tile <= 2 * margin:
        raise ValueError(f"a tile of {tile} pixels is too small for margins of {margin} on both sides")
    for top, kept_top, kept_bottom, bottom in _spans(height, tile, margin):
        for left, kept_left, kept_right, right in _spans(width, tile, margin):
            yield Tile((top, left, bottom, right), (kept_top, kept_left, kept_bottom, kept_right))


def _spans(length: int, tile: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, start kept, end kept, end) along one side. All spans are `tile` long where the photo is."""
    if length <= tile:
        yield 0, 0, length, length
        return
    kept = 0
    while kept < length:
        start = min(max(0, kept - margin), length - tile)
        end = start + tile
        kept_end = length if end == length else end - margin
        yield start, kept, kept_end, end
        kept = kept_end


@torch.inference_mode()
def segment_photo(
    network: nn.Module, photo: Picture, spec: InputSpec, tile: int | None = None, margin: int | None = None
) -> np.ndarray:
    """The class of every pixel: uint8 (H, W) of the photo's size.

    network: in eval mode, images (N, C, H, W) -> logits (N, classes, H, W). photo: of Pillow's, or floats (C, H, W) in
    0..1. spec: its mean and deviation. tile: side of the tiles in pixels; None computes the whole photo at once.
    margin: a quarter of the tile by default, at most 128.
    """
    device = next(network.parameters()).device
    pixels = to_pixels(photo)
    height, width = pixels.shape[1:]
    mask = np.empty((height, width), np.uint8)
    side = tile or max(height, width)
    for part in tiles(height, width, side, default_margin(side) if margin is None else margin):
        top, left, bottom, right = part.outer
        images = normalize(pixels[:, top:bottom, left:right], spec.mean, spec.std)[None]
        logits = network(images.to(device))[0]
        require_finite(logits)
        preds = logits.argmax(0).to(torch.uint8).cpu().numpy()
        up, before, down, behind = part.inner
        mask[up:down, before:behind] = preds[up - top : down - top, before - left : behind - left]
    return mask


def to_pixels(photo: Picture) -> torch.Tensor:
    """(C, H, W): uint8 of a picture of Pillow's, floats as they are."""
    return photo if isinstance(photo, torch.Tensor) else F.pil_to_tensor(photo.convert("RGB"))


def default_margin(tile: int) -> int:
    """A quarter of the tile, at most 128 pixels."""
    return min(tile // 4, 128)


def tile_for_memory(network: nn.Module, max_bytes: int, longest: int, channels: int = 3) -> int | None:
    """The largest tile whose computation needs at most `max_bytes` beyond the network's weights; None for whole photos.

    longest: the longest side of the photos; channels: theirs. The need is estimated by `bytes_needed`.
    `ValueError` where not even the smallest tile fits.
    """
    sides = range(SMALLEST, max(longest, SMALLEST) + STEP, STEP)
    low, high = 0, len(sides)  # the first `low` sides fit, those from `high` on do not
    while low < high:
        middle = (low + high) // 2
        if bytes_needed(network, sides[middle], channels) <= max_bytes:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        need = bytes_needed(network, SMALLEST, channels)
        raise ValueError(
            f"a memory bound of {max_bytes / 2**20:.0f} MiB is too small: the smallest tile, {SMALLEST} pixels, needs "
            f"about {need / 2**20:.0f} MiB"
        )
    return None if low == len(sides) else sides[low - 1]


def bytes_needed(network: nn.Module, side: int, channels: int = 3) -> int:
    """An estimate of the memory for a tile, weights apart: `peak_bytes`, and the work space of the libraries."""
    return int(HEADROOM * peak_bytes(network, side, channels) + WORK_SPACE)


def peak_bytes(network: nn.Module, side: int, channels: int = 3) -> int:
    """The most bytes of tensors alive at once, besides weights, while `network` classifies (1, channels, side, side).

    Counted by running it on tensors without data.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.no_grad():
        images = torch.empty(1, channels, side, side, device=next(network.parameters()).device)
        with _AliveBytes() as alive:
            torch.func.functional_call(network, _fake_state(network, fake), images).argmax(1)
    return alive.peak + images.nbytes


def _fake_state(network: nn.Module, fake: FakeTensorMode) -> dict[str, torch.Tensor]:
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: fake.from_tensor(tensor) for name, tensor in state.items()}


class _AliveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._note, result)
        return result

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.alive -= size
