"""Training under bfloat16 autocast in fused passes: about as near to float64 as the plain form's."""

import copy
from collections import defaultdict
from statistics import geometric_mean, median

import pytest
import torch
import torch.nn.functional as F
from fused_cases import BLOCKS, elastic, lively, maps, residual
from torch import Tensor, nn

from elastic_cnn import create_model
from elastic_cnn.fast import optimize_for_training, training_ops
from elastic_cnn.fast.training import why_plain

REASON = training_ops.unavailable() or ("" if training_ops.bf16_level() else "this processor has no AVX-512 BF16")
needs_bf16 = pytest.mark.skipif(bool(REASON), reason=REASON or "-")
CASES = {
    **BLOCKS,
    "groups that the passes compute": lambda: elastic(residual(width=128, groups=32)),
    "wider groups": lambda: elastic(residual(width=256, groups=32)),
    "odd channels, strided": lambda: residual(width=33, groups=1, stride=2, grow=1),
}


def outcome(block: nn.Module, x: Tensor, autocast: bool) -> dict[str, Tensor]:
    """Output, gradients and buffers after one pass; the input and the output's gradient are rounded in both."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = block(x)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y.backward(noise.bfloat16().to(y.dtype))
    gradients = {f"gradient of {name}": p.grad for name, p in block.named_parameters()}
    buffers = {name: b for name, b in block.named_buffers() if "num_batches" not in name}
    return {"output": y.detach(), "gradient of the input": x.grad, **gradients, **buffers}


def kind_of(name: str) -> str:
    """What is judged together: a tensor of 8 numbers alone says little."""
    if "running" in name or name in ("output", "gradient of the input"):
        return name.rsplit(".", 1)[-1]
    return "norms" if "bn" in name or name in ("gradient of 1.weight", "gradient of 1.bias") else "weights"


@needs_bf16
@pytest.mark.parametrize("name", CASES)
def test_errors_beside_the_plain_form(name):
    """Relative to its tensor, over 4 draws: the geometric mean of a kind is at most 1.5 of autocast's, and of a tensor
    alone the median at most 3 of it. (Means of squares say nothing here: a gradient that nearly cancels rules them.)"""
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(4):
        torch.manual_seed(seed)
        plain = lively(CASES[name]())
        fused, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
        optimize_for_training(fused)
        x = maps(plain, 3, 9 + seed, 13 - seed).bfloat16()
        wanted = outcome(exact, x.double(), False)
        forms = {"plain": outcome(plain, x, True), "fused": outcome(fused, x, True)}
        assert why_plain(fused) == {}
        for form, found in forms.items():
            for key, tensor in wanted.items():
                off = (found[key].double() - tensor).norm() / tensor.norm().clamp_min(1e-3)
                errors[form][key].append(max(float(off), 1e-5))
        assert {key: (t.dtype, t.shape) for key, t in forms["plain"].items()} == {
            key: (t.dtype, t.shape) for key, t in forms["fused"].items()
        }
    for key, theirs in errors["plain"].items():
        assert median(errors["fused"][key]) <= 3 * median(theirs), key
    for kind in map(kind_of, errors["plain"]):
        own, theirs = (
            geometric_mean([e for key, found in errors[form].items() if kind_of(key) == kind for e in found])
            for form in ("fused", "plain")
        )
        assert own <= 1.5 * theirs, kind


def course(network: nn.Module, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9)
    generator, losses = torch.Generator().manual_seed(3), []
    for _ in range(steps):
        images = torch.randn(8, 3, 64, 64, generator=generator).contiguous(memory_format=torch.channels_last)
        targets = torch.randint(0, 5, (8,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@needs_bf16
def test_a_network_trains_as_in_the_plain_form():
    """The first losses agree within rounding; every block of it is fused, twice gives the same to the bit."""
    torch.manual_seed(0)
    plain = create_model("resnext_small_elastic", num_classes=5).to(memory_format=torch.channels_last).train()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    twin = copy.deepcopy(fused)
    one, two = course(plain, 3), course(fused, 3)
    assert why_plain(fused) == {}
    assert one[0] == pytest.approx(two[0], abs=0.02)
    assert one == pytest.approx(two, abs=0.2)
    assert course(twin, 3) == two
    assert all(p.dtype == torch.float32 for p in fused.parameters())


@needs_bf16
@pytest.mark.parametrize("name", ["bottleneck", "elastic, projected", "norm and relu"])
def test_beside_a_matrix_unit_the_library_multiplies(name, monkeypatch):
    """Products by its convolutions, between the same passes."""
    torch.manual_seed(0)
    plain = lively(CASES[name]())
    x = maps(plain, 2, 10, 9).bfloat16()
    fused = copy.deepcopy(plain)
    optimize_for_training(fused)
    monkeypatch.setattr(training_ops, "bf16_level", lambda: "amx_bf16")
    products = []
    real = torch.ops.elastic_cnn.train_pointwise
    monkeypatch.setattr(torch.ops.elastic_cnn, "train_pointwise", lambda *a: products.append(a) or real(*a))
    one, two = outcome(plain, x, True), outcome(fused, x, True)
    assert why_plain(fused) == {}
    assert not products
    for key, tensor in one.items():
        assert float((two[key].double() - tensor.double()).norm()) <= 0.3 * float(tensor.double().norm()) + 1e-2, key


def test_dtypes_that_the_passes_do_not_take():
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    x = maps(block, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        block(x)
    assert why_plain(block)[""] == "autocast is on, and maps are torch.float32"
    with torch.autocast("cpu", torch.float16):
        block(x.half())
    assert why_plain(block)[""] == "autocast is on, and maps are torch.float16"


def test_a_processor_without_bfloat16_is_said(monkeypatch):
    block = lively(BLOCKS["elastic"]())
    optimize_for_training(block)
    monkeypatch.setattr(training_ops, "bf16_level", lambda: "")
    with torch.autocast("cpu", torch.bfloat16):
        block(maps(block, 2, 6, 6).bfloat16())
    assert why_plain(block)[""] == "this processor has no AVX-512 BF16"
