"""Are the GPU kernels, and networks with them, right on this device? Part of `gpu.py`, which runs it first."""

import argparse
import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elastic_cnn import create_model
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.kernels.triton import area_pool, elastic_tail, elastic_tail_train


def plain_tail(high: Tensor, low: Tensor, scale: Tensor, bias: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor]:
    up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
    y = high + up[..., : high.shape[-2], : high.shape[-1]]
    out = F.relu(y * scale.view(-1, 1, 1) + bias.view(-1, 1, 1) + shortcut)
    return out, F.avg_pool2d(out, 2, 2, ceil_mode=True, count_include_pad=False)


def check_kernels(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Outputs and gradients of each kernel against plain PyTorch in float64, over sizes, dtypes and layouts."""
    dtypes = (
        [torch.float64, torch.float32]
        if options.smoke
        else [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    )
    sizes = [(2, 8, 5, 6)] if options.smoke else [(2, 64, 56, 56), (3, 96, 57, 31), (1, 40, 7, 7), (2, 3, 1, 9)]
    results = []
    for dtype in dtypes:
        for size in sizes:
            for layout in (torch.contiguous_format, torch.channels_last):
                errors = kernel_errors(size, dtype, layout, options.device)
                limit = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
                results.append(
                    {
                        "dtype": str(dtype),
                        "size": size,
                        "layout": str(layout),
                        **errors,
                        "ok": max(errors.values()) < limit,
                    }
                )
    return results


def kernel_errors(
    size: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, device: Any
) -> dict[str, float]:
    """Largest differences from float64 over the largest value: of the tail, its gradients, training, and pooling."""
    n, c, height, width = size
    shapes = [(n, c, height, width), (n, c, -(-height // 2), -(-width // 2)), (n, c, height, width)]
    maps = [
        torch.randn(s, device=device, dtype=torch.float64).to(dtype).contiguous(memory_format=layout) for s in shapes
    ]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    vectors = [torch.rand(c, device=device, dtype=wide) + 0.5, torch.randn(c, device=device, dtype=wide)]
    ours = [t.clone().requires_grad_() for t in (*maps, *vectors)]
    exact = [t.double().requires_grad_() for t in (*maps, *vectors)]
    (h, l, s, scale, bias), (eh, el, es, e_scale, e_bias) = ours, exact  # noqa: E741
    mine, reference = elastic_tail(h, l, scale, bias, s, True, True), plain_tail(eh, el, e_scale, e_bias, es)
    gradients = [
        torch.autograd.grad(sum(t.double().square().sum() for t in out), of)
        for out, of in ((mine, ours), (reference, exact))
    ]
    norm = nn.BatchNorm2d(c, device=device, dtype=wide)
    trained, _ = elastic_tail_train(h, l, norm, s)
    up = F.interpolate(el, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    expected = F.relu(F.batch_norm(eh + up, None, None, training=True) + es)
    return {
        "tail": max(map(error, mine, reference)),
        "gradients": max(map(error, *gradients)),
        "training": error(trained, expected) if n * height * width > 16 else 0.0,
        "pool": error(area_pool(h), F.avg_pool2d(eh, 2, 2, ceil_mode=True, count_include_pad=False)),
    }


def error(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max().clamp_min(1e-12))


def check_network(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The optimized network's error against float64, beside the plain form's, in the benchmark's dtype."""
    network = create_model(name, **options.arguments).eval().to(options.device)
    x = torch.randn(2, 3, options.size, options.size, device=options.device)
    with torch.no_grad():
        exact = copy.deepcopy(network).double()(x.double())
        cast = network.to(options.dtype).to(memory_format=torch.channels_last)
        x = x.to(options.dtype).contiguous(memory_format=torch.channels_last)
        plain = error(cast(x), exact)
        fast = error(optimize_for_inference(cast)(x), exact)
    return {"network": name, "plain_error": plain, "optimized_error": fast, "ok": fast < 2 * plain + 1e-6}
