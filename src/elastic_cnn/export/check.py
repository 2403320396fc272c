"""Whether an exported file computes what the network does."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elastic_cnn.export.description import Sizes
from elastic_cnn.export.formats import Run
from elastic_cnn.nn.compare import relative_error, require_finite

# Largest difference over the largest logit. Float32 sums in another order: 1e-6 to 3e-5 for the networks of the zoo.
TOLERANCE = 1e-4
BATCHES = (1, 2)


@dataclass(frozen=True)
class Check:
    """shape: of the input. error: largest difference of a logit from the network's, over its largest logit."""

    shape: tuple[int, ...]
    error: float


def cases(sizes: Sizes, own: tuple[int, int], channels: int) -> list[tuple[int, ...]]:
    """Input shapes to compare at: the network's own size and an odd one, two batches each (one size if fixed)."""
    odd = sizes.near(own[0] * 3 // 4, own[1] * 5 // 4, odd=True)
    shapes = dict.fromkeys([sizes.near(*own), odd])
    return [(batch, channels, *shape) for shape in shapes for batch in BATCHES]


def check(run: Run, network: nn.Module, shapes: Sequence[tuple[int, ...]]) -> list[Check]:
    """Compare `run` with `network` (eval mode) on random images of the shapes.

    Raises `ValueError` where a shape of the output differs or an error is above `TOLERANCE`.
    """
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in shapes:
        images = torch.randn(shape, generator=generator)
        with torch.no_grad():
            expected = network(images)
        require_finite(expected)
        result = Check(shape, relative_error(run(images), expected))
        if not result.error <= TOLERANCE:  # NaN too
            raise ValueError(
                f"the exported file differs from the network at input {'x'.join(map(str, shape))}: by "
                f"{result.error:.1e} of the largest logit (allowed: {TOLERANCE:.0e}); no file was left"
            )
        found.append(result)
    return found


def same_best(output: Tensor, expected: Tensor) -> float:
    """Part of the images (or pixels) whose best class is the same: logits (N, C, ...)."""
    return float((output.argmax(1) == expected.argmax(1)).float().mean())


def same_signs(output: Tensor, expected: Tensor) -> float:
    """Part of the classes' answers, yes above probability 1/2, that are the same: logits (N, C)."""
    return float(((output > 0) == (expected > 0)).float().mean())
