"""How the kernels are started: which tensors they serve, how large tiles are, maps of one memory format."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)

INSTALLED = find_spec("triton") is not None
# Whether Triton runs kernels in its interpreter, on the CPU (for tests): it asks once, when it is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Elements of a tile. One program holds about fifteen values an element in registers: 1024 over 128 threads fit.
TILE = 1024
# Programs that share a reduction over all cells: enough for every multiprocessor; their results stay small.
REDUCERS = 1024


def serves(x: Tensor) -> bool:
    """Whether the kernels take a map like `x` `(N, C, H, W)`: on CUDA, or anywhere under Triton's interpreter.

    Asked while a graph is captured, too: the answer depends on the device and dtype alone.
    """
    return INSTALLED and (x.is_cuda or (INTERPRETED and x.device.type == "cpu")) and x.dtype in DTYPES


@dataclass(frozen=True)
class Grid:
    """How the cells of a map (see cells.py) are laid over programs.

    high: (C, H, W); low: (h, w); cells: N h w; block_p, block_c: a tile's cells and channels.
    """

    cells: int
    high: tuple[int, int, int]
    low: tuple[int, int]
    channels_last: bool
    block_p: int
    block_c: int

    @property
    def blocks(self) -> int:
        """Tiles along the cells."""
        return -(-self.cells // self.block_p)

    @property
    def channel_blocks(self) -> int:
        """Tiles along the channels."""
        return -(-self.high[0] // self.block_c)

    @property
    def reducers(self) -> int:
        """Programs along the cells where each reduces many tiles."""
        return max(1, min(self.blocks, REDUCERS // self.channel_blocks))

    @property
    def sizes(self) -> tuple[int, ...]:
        """cells, C, H, W, h, w, as the kernels take them."""
        return (self.cells, *self.high, *self.low)

    def constants(self, x: Tensor) -> dict[str, Any]:
        """The kernels' compile-time arguments for maps of `x`'s dtype."""
        import triton.language as tl

        acc = tl.float64 if x.dtype == torch.float64 else tl.float32
        return {"CL": self.channels_last, "ACC": acc, "BLOCK_P": self.block_p, "BLOCK_C": self.block_c}


def sum_dtype(x: Tensor) -> torch.dtype:
    """The dtype of arithmetic and of sums: float32, and float64 for float64 maps."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def lay_out(x: Tensor) -> Grid:
    """The grid for a high-resolution map `x` `(N, C, H, W)`: tiles wide along what lies together in memory."""
    n, c, height, width = x.shape
    h, w = -(-height // 2), -(-width // 2)
    channels_last = is_channels_last(x)
    if channels_last:
        block_c = min(64, _power_of_two(c))
        block_p = max(1, min(TILE // block_c, _power_of_two(n * h * w)))
    else:
        block_p = max(1, min(TILE, _power_of_two(n * h * w)))
        block_c = min(TILE // block_p, _power_of_two(c))
    return Grid(n * h * w, (c, height, width), (h, w), channels_last, block_p, block_c)


def is_channels_last(x: Tensor) -> bool:
    """Whether channels lie together in memory; one channel or one pixel, which is both, counts as NCHW."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def gapless(x: Tensor) -> Tensor:
    """`x` itself where it is contiguous, NCHW or channels_last; else a contiguous copy."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def in_format_of(x: Tensor, like: Tensor) -> Tensor:
    """`x` without gaps in the memory format of `like`; copied only where it is not so already."""
    return x.contiguous(memory_format=torch.channels_last if is_channels_last(like) else torch.contiguous_format)


def empty_like(like: Tensor, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised map in the memory format of `like`."""
    return torch.empty(
        shape or tuple(like.shape),
        dtype=dtype or like.dtype,
        device=like.device,
        memory_format=torch.channels_last if is_channels_last(like) else torch.contiguous_format,
    )


def low_shape(x: Tensor) -> tuple[int, int, int, int]:
    """`(N, C, ceil(H / 2), ceil(W / 2))`."""
    n, c, height, width = x.shape
    return (n, c, -(-height // 2), -(-width // 2))


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Triton starts kernels on the current device: make it that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _power_of_two(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()
