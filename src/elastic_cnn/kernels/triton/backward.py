"""Backward kernels: of the elastic tail, of its upsampling, and of pooling.

With z = high + up(low) and g the gradient that reaches the sum before the ReLU (from `out`, and from the pooled map a
part to each pixel of its window), a per-channel affine needs the sums of g and of g (z - centre). The gradient of z is

    dz = k1 g + k2 (z - centre) + k3          k1, k2, k3, centre: one number a channel

for a norm with fixed statistics (k1 = scale, the others 0) and for a batch norm in training alike.
"""

import triton
import triton.language as tl

from elastic_cnn.kernels.triton.cells import cell_tile, offset, per_channel, upsample_cell, window_size


@triton.jit
def pixel_gradient(y, x, out, grad_out, from_pool, n, c, exists, C, H, W,
                   RELU: tl.constexpr, GRAD_OUT: tl.constexpr, CL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """g at one pixel (0 outside), the pixel's place in memory, and whether it exists."""
    inside = exists & (y < H) & (x < W)
    at = offset(n, c, y, x, C, H, W, CL)
    g = tl.where(inside, from_pool, 0.0)
    if GRAD_OUT:
        g += tl.load(grad_out + at, mask=inside, other=0.0).to(ACC)
    if RELU:
        g = tl.where(tl.load(out + at, mask=inside, other=0.0).to(ACC) > 0, g, 0.0)
    return g, at, inside


@triton.jit
def pooled_gradient(grad_pooled, n, c, row, column, exists, C, H, W, h, w,
                    GRAD_POOLED: tl.constexpr, CL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """What each pixel of the cell gets from the gradient of the cell's mean."""
    if GRAD_POOLED:
        g = tl.load(grad_pooled + offset(n, c, row, column, C, h, w, CL), mask=exists, other=0.0).to(ACC)
        return g / window_size(row, column, H, W, ACC)
    else:  # noqa: RET505 (Triton compiles one of the two)
        return tl.zeros_like(exists.to(ACC))


@triton.jit
def sums_of_pixel(z, y, x, high, centre, out, grad_out, from_pool, n, c, exists, C, H, W,
                  RELU: tl.constexpr, GRAD_OUT: tl.constexpr, CL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """g and g (z - centre) at one pixel."""
    g, at, inside = pixel_gradient(y, x, out, grad_out, from_pool, n, c, exists, C, H, W, RELU, GRAD_OUT, CL, ACC)
    v = tl.load(high + at, mask=inside, other=0.0).to(ACC) + z
    return g, g * (v - centre)


@triton.jit
def sums_kernel(high, low, centre, out, grad_out, grad_pooled, sums, products, blocks, cells, C, H, W, h, w, programs,
                RELU: tl.constexpr, GRAD_OUT: tl.constexpr, GRAD_POOLED: tl.constexpr,
                CL: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Per program and channel: the sums of g and of g (z - centre), each (programs, C), to be added by the caller."""
    program = tl.program_id(0)
    total = tl.zeros([BLOCK_C], ACC)
    product = tl.zeros([BLOCK_C], ACC)
    for block in range(program, blocks, programs):
        n, c, row, column, exists = cell_tile(block, tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
        m = per_channel(centre, c, C, ACC)
        z00, z01, z10, z11 = upsample_cell(low, n, c, row, column, exists, C, h, w, CL, ACC)
        pool = pooled_gradient(grad_pooled, n, c, row, column, exists, C, H, W, h, w, GRAD_POOLED, CL, ACC)
        y, x = 2 * row, 2 * column
        g00, p00 = sums_of_pixel(z00, y, x, high, m, out, grad_out, pool, n, c, exists, C, H, W,
                                 RELU, GRAD_OUT, CL, ACC)  # fmt: skip
        g01, p01 = sums_of_pixel(z01, y, x + 1, high, m, out, grad_out, pool, n, c, exists, C, H, W,
                                 RELU, GRAD_OUT, CL, ACC)  # fmt: skip
        g10, p10 = sums_of_pixel(z10, y + 1, x, high, m, out, grad_out, pool, n, c, exists, C, H, W,
                                 RELU, GRAD_OUT, CL, ACC)  # fmt: skip
        g11, p11 = sums_of_pixel(z11, y + 1, x + 1, high, m, out, grad_out, pool, n, c, exists, C, H, W,
                                 RELU, GRAD_OUT, CL, ACC)  # fmt: skip
        total += tl.sum(g00 + g01 + g10 + g11, 0)
        product += tl.sum(p00 + p01 + p10 + p11, 0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    tl.store(sums + program * C + c, total, mask=c < C)
    tl.store(products + program * C + c, product, mask=c < C)


@triton.jit
def write_pixel(z, y, x, high, k1, k2, k3, centre, out, grad_out, from_pool, grad_high, grad_shortcut,
                n, c, exists, C, H, W, RELU: tl.constexpr, GRAD_OUT: tl.constexpr, SCALE: tl.constexpr,
                STATISTICS: tl.constexpr, SHORTCUT: tl.constexpr, CL: tl.constexpr, ACC: tl.constexpr):  # fmt: skip
    """The gradients of `high` and of the shortcut at one pixel."""
    g, at, inside = pixel_gradient(y, x, out, grad_out, from_pool, n, c, exists, C, H, W, RELU, GRAD_OUT, CL, ACC)
    if SHORTCUT:
        tl.store(grad_shortcut + at, g.to(grad_shortcut.dtype.element_ty), mask=inside)
    dz = g * k1 if SCALE else g
    if STATISTICS:
        v = tl.load(high + at, mask=inside, other=0.0).to(ACC) + z
        dz += k2 * (v - centre) + k3
    tl.store(grad_high + at, dz.to(grad_high.dtype.element_ty), mask=inside)


@triton.jit
def grad_kernel(high, low, k1, k2, k3, centre, out, grad_out, grad_pooled, grad_high, grad_shortcut,
                cells, C, H, W, h, w, RELU: tl.constexpr, GRAD_OUT: tl.constexpr, GRAD_POOLED: tl.constexpr,
                SCALE: tl.constexpr, STATISTICS: tl.constexpr, SHORTCUT: tl.constexpr,
                CL: tl.constexpr, ACC: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """dz = k1 g + k2 (z - centre) + k3, the gradient of `high`, and g, the gradient of the shortcut."""
    n, c, row, column, exists = cell_tile(tl.program_id(0), tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
    a = per_channel(k1, c, C, ACC) if SCALE else 0.0
    pool = pooled_gradient(grad_pooled, n, c, row, column, exists, C, H, W, h, w, GRAD_POOLED, CL, ACC)
    y, x = 2 * row, 2 * column
    if STATISTICS:
        s, t, m = per_channel(k2, c, C, ACC), per_channel(k3, c, C, ACC), per_channel(centre, c, C, ACC)
        z00, z01, z10, z11 = upsample_cell(low, n, c, row, column, exists, C, h, w, CL, ACC)
    else:
        s, t, m = 0.0, 0.0, 0.0
        z00, z01, z10, z11 = 0.0, 0.0, 0.0, 0.0
    write_pixel(z00, y, x, high, a, s, t, m, out, grad_out, pool, grad_high, grad_shortcut, n, c, exists, C, H, W,
                RELU, GRAD_OUT, SCALE, STATISTICS, SHORTCUT, CL, ACC)  # fmt: skip
    write_pixel(z01, y, x + 1, high, a, s, t, m, out, grad_out, pool, grad_high, grad_shortcut, n, c, exists, C, H, W,
                RELU, GRAD_OUT, SCALE, STATISTICS, SHORTCUT, CL, ACC)  # fmt: skip
    write_pixel(z10, y + 1, x, high, a, s, t, m, out, grad_out, pool, grad_high, grad_shortcut, n, c, exists, C, H, W,
                RELU, GRAD_OUT, SCALE, STATISTICS, SHORTCUT, CL, ACC)  # fmt: skip
    write_pixel(z11, y + 1, x + 1, high, a, s, t, m, out, grad_out, pool, grad_high, grad_shortcut, n, c, exists,
                C, H, W, RELU, GRAD_OUT, SCALE, STATISTICS, SHORTCUT, CL, ACC)  # fmt: skip


@triton.jit
def upsample_grad_kernel(grad_high, grad_low, cells, C, H, W, h, w, CL: tl.constexpr, ACC: tl.constexpr,
                         BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Each low-resolution pixel gathers from the 4 x 4 pixels that it had a part in: no two programs write one place.

    Weights across and down are 1/4, 3/4, 3/4, 1/4; at the edge, which the upsampling repeats, the outermost pixel's 3/4
    becomes 1. Pixels that cropping an odd size cut off have no gradient.
    """
    n, c, row, column, exists = cell_tile(tl.program_id(0), tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
    total = tl.zeros([BLOCK_P, BLOCK_C], ACC)
    for i in tl.static_range(4):
        y = 2 * row - 1 + i
        edge_y = ((i == 1) & (row == 0)) | ((i == 2) & (row == h - 1))
        weight_y = tl.where(edge_y, 1.0, 0.75 if (i == 1) | (i == 2) else 0.25)
        for j in tl.static_range(4):
            x = 2 * column - 1 + j
            edge_x = ((j == 1) & (column == 0)) | ((j == 2) & (column == w - 1))
            weight_x = tl.where(edge_x, 1.0, 0.75 if (j == 1) | (j == 2) else 0.25)
            inside = exists & (y >= 0) & (y < H) & (x >= 0) & (x < W)
            g = tl.load(grad_high + offset(n, c, y, x, C, H, W, CL), mask=inside, other=0.0).to(ACC)
            total += (weight_y * weight_x).to(ACC) * g
    tl.store(grad_low + offset(n, c, row, column, C, h, w, CL), total.to(grad_low.dtype.element_ty), mask=exists)


@triton.jit
def pool_grad_kernel(grad_pooled, grad, cells, C, H, W, h, w, CL: tl.constexpr, ACC: tl.constexpr,
                     BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """Each pixel of a window gets the window's gradient over the number of its pixels."""
    n, c, row, column, exists = cell_tile(tl.program_id(0), tl.program_id(1), cells, C, h, w, BLOCK_P, BLOCK_C)
    g = pooled_gradient(grad_pooled, n, c, row, column, exists, C, H, W, h, w, True, CL, ACC)
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            y, x = 2 * row + i, 2 * column + j
            inside = exists & (y < H) & (x < W)
            tl.store(grad + offset(n, c, y, x, C, H, W, CL), g.to(grad.dtype.element_ty), mask=inside)
