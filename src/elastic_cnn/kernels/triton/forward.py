"""Forward kernels: the elastic tail, its statistics for a batch norm in training, and pooling."""

import triton
import triton.language as tl

from elastic_cnn.kernels.triton.cells import cell_tile, offset, per_channel, upsample_cell, window_size


@triton.jit
def finish(z, y, x, high, scale, bias, shortcut, out, n, c, exists, C, H, W,
           SCALE: tl.constexpr, BIAS: tl.constexpr, SHORTCUT: tl.constexpr, RELU: tl.constexpr,
           CL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """One pixel of the tail, from its upsampled value z: written to `out`, and returned as written; 0 outside."""
    inside = exists & (y < H) & (x < W)
    at = offset(n, c, y, x, C, H, W, CL)
    v = tl.load(high + at, mask=inside, other=0.0).to(ACC) + z
    if SCALE:
        v = v * scale
    if BIAS:
        v = v + bias
    if SHORTCUT:
        v += tl.load(shortcut + at, mask=inside, other=0.0).to(ACC)
    if RELU:
        v = tl.where(v < 0, 0.0, v)  # keeps NaN, as torch does
    rounded = v.to(out.dtype.element_ty)
    tl.store(out + at, rounded, mask=inside)
    return tl.where(inside, rounded.to(ACC), 0.0)


@triton.jit
def tail_kernel(high, low, scale, bias, shortcut, out, pooled, cells, C, H, W, h, w,
                SCALE: tl.constexpr, BIAS: tl.constexpr, SHORTCUT: tl.constexpr, RELU: tl.constexpr,
                POOL: tl.constexpr, CL: tl.constexpr, ACC: tl.constexpr,
                BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """out = relu(scale * (high + up(low)) + bias + shortcut) and, with POOL, its 2 x 2 average: one read of each input,
    one write of each output."""
    n, c, row, column, exists = cell_tile(tl.program_id(0), tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
    a = per_channel(scale, c, C, ACC) if SCALE else 0.0
    b = per_channel(bias, c, C, ACC) if BIAS else 0.0
    z00, z01, z10, z11 = upsample_cell(low, n, c, row, column, exists, C, h, w, CL, ACC)
    y, x = 2 * row, 2 * column
    total = finish(z00, y, x, high, a, b, shortcut, out, n, c, exists, C, H, W, SCALE, BIAS, SHORTCUT, RELU, CL, ACC)
    total += finish(z01, y, x + 1, high, a, b, shortcut, out, n, c, exists, C, H, W,
                    SCALE, BIAS, SHORTCUT, RELU, CL, ACC)  # fmt: skip
    total += finish(z10, y + 1, x, high, a, b, shortcut, out, n, c, exists, C, H, W,
                    SCALE, BIAS, SHORTCUT, RELU, CL, ACC)  # fmt: skip
    total += finish(z11, y + 1, x + 1, high, a, b, shortcut, out, n, c, exists, C, H, W,
                    SCALE, BIAS, SHORTCUT, RELU, CL, ACC)  # fmt: skip
    if POOL:
        mean = total / window_size(row, column, H, W, ACC)
        tl.store(pooled + offset(n, c, row, column, C, h, w, CL), mean.to(pooled.dtype.element_ty), mask=exists)


@triton.jit
def sum_pixel(z, y, x, high, n, c, exists, C, H, W, CL: tl.constexpr, ACC: tl.constexpr):
    """high + up(low) at one pixel, and whether the pixel exists."""
    inside = exists & (y < H) & (x < W)
    v = tl.load(high + offset(n, c, y, x, C, H, W, CL), mask=inside, other=0.0).to(ACC) + z
    return tl.where(inside, v, 0.0), inside


@triton.jit
def stats_kernel(high, low, counts, means, squares, blocks, cells, C, H, W, h, w, programs,
                 CL: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Per program and channel: count, mean and sum of squared deviations of high + up(low) over the program's cells.

    Tiles are merged by Chan's formula, which does not cancel where the mean is large. Program i of `programs` takes the
    blocks i, i + programs, ...; the three results are (programs, C) and are merged by the caller.
    """
    program = tl.program_id(0)
    count = tl.zeros([1, BLOCK_C], ACC)
    mean = tl.zeros([1, BLOCK_C], ACC)
    square = tl.zeros([1, BLOCK_C], ACC)
    for block in range(program, blocks, programs):
        n, c, row, column, exists = cell_tile(block, tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
        z00, z01, z10, z11 = upsample_cell(low, n, c, row, column, exists, C, h, w, CL, ACC)
        y, x = 2 * row, 2 * column
        v00, i00 = sum_pixel(z00, y, x, high, n, c, exists, C, H, W, CL, ACC)
        v01, i01 = sum_pixel(z01, y, x + 1, high, n, c, exists, C, H, W, CL, ACC)
        v10, i10 = sum_pixel(z10, y + 1, x, high, n, c, exists, C, H, W, CL, ACC)
        v11, i11 = sum_pixel(z11, y + 1, x + 1, high, n, c, exists, C, H, W, CL, ACC)
        new = tl.sum(i00.to(ACC) + i01.to(ACC) + i10.to(ACC) + i11.to(ACC), 0)[None, :]
        new_mean = tl.sum(v00 + v01 + v10 + v11, 0)[None, :] / tl.maximum(new, 1.0)
        d00 = tl.where(i00, v00 - new_mean, 0.0)
        d01 = tl.where(i01, v01 - new_mean, 0.0)
        d10 = tl.where(i10, v10 - new_mean, 0.0)
        d11 = tl.where(i11, v11 - new_mean, 0.0)
        new_square = tl.sum(d00 * d00 + d01 * d01 + d10 * d10 + d11 * d11, 0)[None, :]
        both = tl.maximum(count + new, 1.0)
        delta = new_mean - mean
        mean += delta * (new / both)
        square += new_square + delta * delta * (count * new / both)
        count += new
    c = (tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    at = program * C + c
    tl.store(counts + at, count, mask=c < C)
    tl.store(means + at, mean, mask=c < C)
    tl.store(squares + at, square, mask=c < C)


@triton.jit
def read_pixel(y, x, source, n, c, exists, C, H, W, CL: tl.constexpr, ACC: tl.constexpr):
    """One pixel of a map, 0 outside."""
    return tl.load(source + offset(n, c, y, x, C, H, W, CL), mask=exists & (y < H) & (x < W), other=0.0).to(ACC)


@triton.jit
def pool_kernel(source, pooled, cells, C, H, W, h, w, CL: tl.constexpr, ACC: tl.constexpr,
                BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """The mean over each 2 x 2 window; a window that reaches over the edge takes the mean of what lies inside."""
    n, c, row, column, exists = cell_tile(tl.program_id(0), tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
    y, x = 2 * row, 2 * column
    total = read_pixel(y, x, source, n, c, exists, C, H, W, CL, ACC)
    total += read_pixel(y, x + 1, source, n, c, exists, C, H, W, CL, ACC)
    total += read_pixel(y + 1, x, source, n, c, exists, C, H, W, CL, ACC)
    total += read_pixel(y + 1, x + 1, source, n, c, exists, C, H, W, CL, ACC)
    mean = total / window_size(row, column, H, W, ACC)
    tl.store(pooled + offset(n, c, row, column, C, h, w, CL), mean.to(pooled.dtype.element_ty), mask=exists)
