"""What all the Triton kernels share: the cell, and how maps lie in memory.

A *cell* is one pixel of the low-resolution map and the 2 x 2 window of high-resolution pixels above it (fewer at the
edge of an odd size). Bilinear upsampling by 2 (half-pixel centres) gives those four pixels from the 3 x 3 low pixels
around the cell's own, and average pooling by 2 gives the cell's pooled pixel from those four: so one program that owns
a cell can upsample, add, and pool, and writes everything exactly once.

A program works on a tile of BLOCK_P cells times BLOCK_C channels. Maps are dense, NCHW or channels_last (CL): tiles are
wide along whatever is contiguous in memory. Arithmetic is in ACC: float32, or float64 for float64 maps.

    n, c, y, x   image, channel, row, column      C, H, W   channels, height, width of the high-resolution map
    h, w         ceil(H / 2), ceil(W / 2)         cells     N * h * w
"""

import triton
import triton.language as tl


@triton.jit
def offset(n, c, y, x, C, H, W, CL: tl.constexpr):
    """Where element (n, c, y, x) of a (N, C, H, W) map lies; 64 bits, as maps may hold more than 2^31 elements."""
    if CL:
        return ((n * H + y) * W + x) * C + c
    else:  # noqa: RET505 (Triton compiles one of the two)
        return ((n * C + c) * H + y) * W + x


@triton.jit
def cell_tile(block, channel_block, cells, C, h, w, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """(n, c, row, column, which of them exist): cells lie down (BLOCK_P, 1), channels across (1, BLOCK_C)."""
    p = block * BLOCK_P + tl.arange(0, BLOCK_P)
    c = channel_block * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = (p < cells)[:, None] & (c < C)[None, :]
    column = p % w
    row = (p // w) % h
    n = (p // (w * h)).to(tl.int64)
    return n[:, None], c[None, :], row[:, None], column[:, None], exists


@triton.jit
def per_channel(pointer, c, C, ACC: tl.constexpr):
    """(1, BLOCK_C): one number a channel; 0 for channels that do not exist."""
    return tl.load(pointer + c, mask=c < C, other=0.0).to(ACC)


@triton.jit
def mix_row(low, n, c, y, left, x, right, exists, C, h, w, CL: tl.constexpr, ACC: tl.constexpr):
    """One low-resolution row upsampled across: its values at the cell's left and right columns."""
    a = tl.load(low + offset(n, c, y, left, C, h, w, CL), mask=exists, other=0.0).to(ACC)
    b = tl.load(low + offset(n, c, y, x, C, h, w, CL), mask=exists, other=0.0).to(ACC)
    d = tl.load(low + offset(n, c, y, right, C, h, w, CL), mask=exists, other=0.0).to(ACC)
    return 0.25 * a + 0.75 * b, 0.75 * b + 0.25 * d


@triton.jit
def upsample_cell(low, n, c, row, column, exists, C, h, w, CL: tl.constexpr, ACC: tl.constexpr):
    """The cell's four upsampled pixels: top left, top right, bottom left, bottom right. The edge repeats."""
    above = tl.maximum(row - 1, 0)
    below = tl.minimum(row + 1, h - 1)
    left = tl.maximum(column - 1, 0)
    right = tl.minimum(column + 1, w - 1)
    la, ra = mix_row(low, n, c, above, left, column, right, exists, C, h, w, CL, ACC)
    lm, rm = mix_row(low, n, c, row, left, column, right, exists, C, h, w, CL, ACC)
    lb, rb = mix_row(low, n, c, below, left, column, right, exists, C, h, w, CL, ACC)
    return 0.25 * la + 0.75 * lm, 0.25 * ra + 0.75 * rm, 0.75 * lm + 0.25 * lb, 0.75 * rm + 0.25 * rb


@triton.jit
def window_size(row, column, H, W, ACC: tl.constexpr):
    """How many high-resolution pixels the cell has: 4, and 2 or 1 at the edge of an odd size."""
    rows = tl.where(2 * row + 1 < H, 2, 1)
    columns = tl.where(2 * column + 1 < W, 2, 1)
    return (rows * columns).to(ACC)
