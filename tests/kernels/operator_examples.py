"""Arguments for every registered operator of the native kernels, and what it computes, written with torch's own layers.

`examples()[name]` are arguments that fit. `PLAIN[name]` takes those of an operator of the training form, and yields
its results and what it writes into its arguments, in the order of its schema. What the inference operators compute
stands in `native_blocks_reference.py` and `native_dense_reference.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from native_blocks_reference import random_block
from native_dense_reference import random_layer, random_transition
from torch import Tensor

from elastic_cnn.kernels import ops
from elastic_cnn.kernels.packing import Tree, pack, pack_stem, pack_tree
from elastic_cnn.kernels.packing_dense import pack_dense

N, C, H, W = 2, 64, 5, 7
OUT, GROUPED = 48, (C, 4, 3, 3)
MOMENTUM, EPS = 0.1, 1e-5


def a_map(c: int = C, h: int = H, w: int = W) -> Tensor:
    return torch.randn(N, c, h, w).contiguous(memory_format=torch.channels_last)


def low(c: int = C) -> Tensor:
    return a_map(c, -(-H // 2), -(-W // 2))


def statistics(c: int = C) -> Tensor:
    """mean, 1 / sqrt(var + eps), scale, shift: such that about half of a normal map is active."""
    return torch.stack([torch.randn(c) / 4, torch.rand(c) + 0.5, torch.rand(c) + 0.5, torch.randn(c) / 4])


def norm(c: int = C) -> list[Any]:
    return [torch.rand(c) + 0.5, torch.randn(c), torch.randn(c), torch.rand(c) + 0.5, MOMENTUM, EPS]


def active() -> Tensor:
    return torch.randint(0, 256, (N, H, -(-W // 8), C), dtype=torch.uint8)


def blocks() -> list[Any]:
    return [
        random_block(8, 12, (4, 2), (3, 2), projection=True, hidden=5),
        random_block(12, 12, (16, 1), (2, 3)),
        random_block(12, 12, (1, 4), (1, 8), joined=9, hidden=3),
        random_block(12, 20, (4, 2), stride=2, projection=True),
    ]


def trunk() -> list[Any]:
    return [random_layer(8, 4, 8, 8), random_layer(12, 4, 8, 0), random_transition(16, 6), random_layer(6, 4, 8, 8)]


def tree() -> Tree:
    first, second = random_block(8, 12, (4, 2), stride=2, projection=True), random_block(12, 12, (4, 2), (3, 2))
    return Tree((first, second), (torch.randn(12, 32).double(), torch.randn(12).double()), (8,), True)


def examples() -> dict[str, list[Any]]:
    """Arguments that fit, of every operator that takes tensors."""
    bfloat16 = of_inference(torch.bfloat16) if ops.ready(torch.bfloat16) else {}
    return (
        of_inference(torch.float32)
        | {f"{name}_bf16": arguments for name, arguments in bfloat16.items()}
        | {
            "advise_huge_pages": [torch.randn(5000)],
            "train_statistics": [a_map(), *norm()],
            "train_normalize": [a_map(), statistics(), True],
            "train_batch_norm_backward": [a_map(), a_map(), statistics(), True, a_map()],
            "train_sum_statistics": [a_map(), low(), *norm()],
            "train_finish": [a_map(), statistics(), a_map()],
            "train_tail_backward": [a_map(), active(), a_map(), statistics(), True],
            "train_pool": [a_map()],
            "train_input_gradient": [a_map(), a_map(), active(), low()],
            "train_active_gradient": [a_map(), active()],
            "train_pointwise": [a_map(), statistics(), torch.randn(OUT, C, 1, 1), low(OUT), *norm(OUT)],
            "train_pointwise_norm_gradient": [a_map(OUT), torch.randn(OUT, C, 1, 1), a_map(), statistics()],
            "train_pointwise_input_gradient": [a_map(OUT), torch.randn(OUT, C, 1, 1), a_map(), active(), low()],
            "train_pointwise_weight_gradient": [a_map(OUT), a_map(), statistics()],
            "train_grouped": [a_map(), statistics(), torch.randn(GROUPED), 1, *norm()],
            "train_grouped_norm_gradient": [a_map(), torch.randn(GROUPED), a_map(), statistics(), 1],
            "train_grouped_weight_gradient": [a_map(), a_map(), statistics(), torch.randn(GROUPED), 1],
        }
    )


def of_inference(dtype: torch.dtype) -> dict[str, list[Any]]:
    """Those of the inference operators, on maps of this dtype."""
    residual, dense, joined = pack(blocks(), dtype), pack_dense(trunk(), dtype), pack_tree(tree(), dtype)
    x, bottom = torch.randn(N, 8, 9, 7).to(dtype), torch.randn(N, 8, 5, 4).to(dtype)
    weights = pack_stem(torch.randn(40, 3, 3, 3), dtype)
    return {
        "residual_blocks": [x, residual.weights, residual.plan],
        "residual_blocks_profile": [x, residual.weights, residual.plan],
        "dense_blocks": [x, dense.weights, dense.plan],
        "dense_blocks_profile": [x, dense.weights, dense.plan],
        "dla_tree": [x, bottom, [bottom.clone()], joined.weights, joined.plan],
        "stem": [torch.randn(N, 3, 15, 11).to(dtype), weights, torch.randn(40), 3, 2],
    }


def in_bfloat16(arguments: list[Any]) -> list[Any]:
    """Those of an operator of the training form, its maps (of N images) in bfloat16; weights, of which products take
    their rounded values, hold such values."""

    def change(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
            return x
        return x.bfloat16() if x.shape[0] == N else x.bfloat16().float()

    return [change(x) for x in arguments]


# -- what the training form's operators compute


def affine(z: Tensor, s: Tensor) -> Tensor:
    return z * s[2][:, None, None] + s[3][:, None, None]


def up(low: Tensor, h: int, w: int) -> Tensor:
    """Bilinear by two, half-pixel, cropped: 3/4 of the nearest pixel, 1/4 of its neighbour, along each axis.

    F.interpolate is the same, but multiplies pixels by 0 at the edges, so that what is not finite there spreads.
    """
    padded = F.pad(low, (1, 1, 1, 1), mode="replicate")
    for dim in (2, 3):
        size = padded.shape[dim] - 2
        here, before, after = (padded.narrow(dim, start, size) for start in (1, 0, 2))
        both = torch.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], dim + 1)
        padded = both.flatten(dim, dim + 1)
        if dim == 2:
            padded = padded[..., :h, :]
    return padded[..., :w]


def bits(mask: Tensor, w: int) -> Tensor:
    """`active` (N, H, ceil(W / 8), C) as booleans (N, C, H, W)."""
    spread = (mask[..., None, :] >> torch.arange(8, dtype=torch.uint8)[:, None]) & 1
    return spread.flatten(2, 3)[:, :, :w].permute(0, 3, 1, 2).bool()


def packed_bits(mask: Tensor) -> Tensor:
    """The way back."""
    n, c, h, w = mask.shape
    spread = F.pad(mask, (0, -w % 8)).permute(0, 2, 3, 1).reshape(n, h, -1, 8, c).to(torch.uint8)
    return (spread << torch.arange(8, dtype=torch.uint8)[:, None]).sum(3, dtype=torch.uint8)


def new_statistics(z: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of z, and the running mean and variance after it."""
    own_mean, own_var = z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)
    inverse = (own_var + EPS).rsqrt()
    made = torch.stack([own_mean, inverse, weight * inverse, bias - own_mean * weight * inverse])
    count = z.numel() / z.shape[1]
    unbiased = own_var * count / (count - 1)
    return made, mean + MOMENTUM * (own_mean - mean), var + MOMENTUM * (unbiased - var)


def norm_gradient(g: Tensor, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of z, of the norm's weight and of its bias, from that of its output."""
    centred = z - s[0][:, None, None]
    bias, dot = g.sum((0, 2, 3)), (g * centred).sum((0, 2, 3))
    count = z.numel() / z.shape[1]
    slope = (s[2] * s[1] * s[1] * dot / count)[:, None, None]
    dz = s[2][:, None, None] * g - slope * centred - (s[2] * bias / count)[:, None, None]
    return dz, dot * s[1], bias


def let_pass(dy: Tensor, value: Tensor) -> Tensor:
    return torch.where(value <= 0, 0, dy)


def gradient_of(function: Callable[[Tensor], Tensor], at: Tensor, dy: Tensor) -> Tensor:
    """The gradient of a linear function."""
    return torch.autograd.functional.vjp(function, torch.zeros_like(at), dy)[1]


def pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)


def input_gradient(dx: Tensor, dy: Tensor, mask: Tensor, low: Tensor) -> Tensor:
    return dx + torch.where(bits(mask, W), dy, 0) + gradient_of(pooled, dx, low)


def plain_tail_backward(dy: Tensor, mask: Tensor, z: Tensor, s: Tensor, _: bool) -> tuple[Tensor, ...]:
    dz, weight, bias = norm_gradient(torch.where(bits(mask, W), dy, 0), z, s)
    return dz, gradient_of(lambda x: up(x, H, W), z.new_zeros(N, C, -(-H // 2), -(-W // 2)), dz), weight, bias


def plain_finish(z: Tensor, s: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
    y = affine(z, s) + shortcut
    return F.relu(y), packed_bits(~(y <= 0))


def plain_sum_statistics(z: Tensor, low: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
    total = z + up(low, H, W)
    made, mean, var = new_statistics(total, *parameters[:4])
    return made, total, mean, var


def plain_pointwise(a: Tensor, before: Tensor, weight: Tensor, low: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
    z = F.conv2d(F.relu(affine(a, before)), weight) + up(low, H, W)
    return z, *new_statistics(z, *parameters[:4])


def plain_grouped(x: Tensor, before: Tensor, weight: Tensor, stride: int, *parameters: Any) -> tuple[Tensor, ...]:
    z = F.conv2d(F.relu(affine(x, before)), weight, None, stride, 1, 1, C // 4)
    return z, *new_statistics(z, *parameters[:4])


def plain_grouped_gradient(dz: Tensor, weight: Tensor, x: Tensor, s: Tensor, stride: int) -> tuple[Tensor, ...]:
    da = gradient_of(lambda a: F.conv2d(a, weight, None, stride, 1, 1, C // 4), x, dz)
    return norm_gradient(let_pass(da, affine(x, s)), x, s)


def weight_gradient(dz: Tensor, a: Tensor, shape: tuple[int, ...], padding: int, groups: int) -> Tensor:
    return gradient_of(lambda w: F.conv2d(a, w, None, 1, padding, 1, groups), torch.zeros(shape).to(a), dz)


PLAIN: dict[str, Callable[..., Any]] = {
    "train_statistics": lambda z, *p: new_statistics(z, *p[:4]),
    "train_normalize": lambda z, s, relu: (F.relu(affine(z, s)),),
    "train_batch_norm_backward": lambda dy, z, s, relu, dz: (
        *(found := norm_gradient(let_pass(dy, affine(z, s)), z, s))[1:],
        found[0],
    ),
    "train_sum_statistics": plain_sum_statistics,
    "train_finish": plain_finish,
    "train_tail_backward": plain_tail_backward,
    "train_pool": lambda x: (pooled(x),),
    "train_input_gradient": lambda *given: (input_gradient(*given),),
    "train_active_gradient": lambda dy, mask: (torch.where(bits(mask, W), dy, 0),),
    "train_pointwise": plain_pointwise,
    "train_pointwise_norm_gradient": lambda dz, w, z, s: norm_gradient(
        let_pass(F.conv_transpose2d(dz, w), affine(z, s)), z, s
    ),
    "train_pointwise_input_gradient": lambda dz, w, *others: (input_gradient(F.conv_transpose2d(dz, w), *others),),
    "train_pointwise_weight_gradient": lambda dz, a, s: (
        weight_gradient(dz, F.relu(affine(a, s)), (OUT, C, 1, 1), 0, 1),
    ),
    "train_grouped": plain_grouped,
    "train_grouped_norm_gradient": plain_grouped_gradient,
    "train_grouped_weight_gradient": lambda dz, x, s, w, stride: (
        weight_gradient(dz, F.relu(affine(x, s)), GROUPED, 1, C // 4),
    ),
}
