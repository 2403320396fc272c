"""Influence: what each block's conversion alone would do to the network's answers, to second order.

Where a block's output is off by d, the answers' distribution moves by a divergence of half the mean of (g'd)^2, g
being the gradient of the log-probability of an answer that is drawn from the network's own distribution (Fisher's
information). One backward pass gives g for all blocks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from elastic_cnn.conversion.probe import Call
from elastic_cnn.nn import set_blend
from elastic_cnn.nn.compare import output_tensors
from elastic_cnn.tasks.spec import task_spec

AT_A_TIME = 8  # photos whose maps are all kept for the backward pass
DRAWS = 2  # answers drawn for each photo


def influences(
    elastic: nn.Module, names: Sequence[str], images: Sequence[Tensor], task: str, seed: int
) -> dict[str, float]:
    """{block: divergence of the answers, in nats an image, were that block alone to run at its resolutions}; leaves the
    blend at 1. Where the output is no tensor of logits, of Gaussian noise of its own size around it."""
    set_blend(elastic, 0)
    found = dict.fromkeys(names, 0.0)
    generator = torch.Generator().manual_seed(seed)
    count = 0
    for batch in images:
        for part in batch.split(AT_A_TIME):
            for name, value in _of_batch(elastic, names, part, task, generator).items():
                found[name] += value
            count += len(part)
    set_blend(elastic, 1)
    return {name: value / count for name, value in found.items()}


def _of_batch(
    elastic: nn.Module, names: Sequence[str], images: Tensor, task: str, generator: torch.Generator
) -> dict[str, float]:
    """The same, summed over the images."""
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}  # outputs, and by how much they would be off
    calls: dict[str, Call] = {}

    def entering(name: str) -> Any:
        return lambda _, args, kwargs: calls.__setitem__(name, Call(args, kwargs).copy())

    def leaving(name: str) -> Any:
        def measure(block: nn.Module, _: Any, output: Any) -> Any:
            call = calls.pop(name)
            set_blend(block, 1)
            with torch.no_grad():
                low = block.forward(*call.args, **call.kwargs)
                pairs = zip(output_tensors(low), output_tensors(output), strict=True)
                seen[name] = list(output_tensors(output)), [a - b for a, b in pairs]
            set_blend(block, 0)
            return output.clone() if isinstance(output, Tensor) else None  # what follows may work in place

        return measure

    handles = []
    for name in names:
        block = elastic.get_submodule(name)
        handles.append(block.register_forward_pre_hook(entering(name), with_kwargs=True))
        handles.append(block.register_forward_hook(leaving(name)))
    try:
        with torch.enable_grad():
            outputs = [o for o in output_tensors(elastic(images.detach().requires_grad_())) if o.requires_grad]
    finally:
        for handle in handles:
            handle.remove()
    ends = [tensor for tensors, _ in seen.values() for tensor in tensors]
    total = dict.fromkeys(seen, 0.0)
    for draw in range(DRAWS):
        targets = [_score(output.detach(), task, generator) for output in outputs]
        gradients = iter(_gradients(outputs, ends, targets, draw + 1 < DRAWS))
        for name, (_, differences) in seen.items():
            moved = torch.zeros(len(images), device=images.device)
            for difference in differences:
                gradient = next(gradients)
                if gradient is not None:
                    moved += (gradient * difference).flatten(1).sum(1)
            total[name] += float(moved.square().sum()) / (2 * DRAWS)
    return total


def _gradients(
    outputs: Sequence[Tensor], ends: Sequence[Tensor], targets: Sequence[Tensor], again: bool
) -> Sequence[Tensor | None]:
    """Of the outputs in the ends. `ValueError` where torch has none: code that writes over what it still needs, or that
    computes without gradients and has a backward pass of its own."""
    try:
        return torch.autograd.grad(outputs, ends, targets, retain_graph=again, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"gradients cannot be had inside of the network, which an aim needs ({error!s:.120}): convert it without "
            "budget, time and tolerance"
        ) from error


def _score(output: Tensor, task: str, generator: torch.Generator) -> Tensor:
    """The gradient, in the output, of the log-probability of an answer that is drawn from it."""
    several = task_spec(task).several
    if output.dim() not in (2, 4) or (output.shape[1] == 1 and not several):  # no classes to draw from
        return torch.randn(output.shape, generator=generator).to(output) / output.std().clamp_min(1e-30)
    if several:
        chances = output.sigmoid()
        return torch.bernoulli(chances.cpu(), generator=generator).to(output) - chances
    chances = output.softmax(1)
    rows = chances.movedim(1, -1).flatten(0, -2).cpu()  # (N or positions, classes)
    drawn = torch.multinomial(rows, 1, generator=generator)
    answers = torch.zeros_like(rows).scatter_(1, drawn, 1.0)
    return answers.view(chances.movedim(1, -1).shape).movedim(-1, 1).to(output) - chances
