"""Operators called with arguments that do not fit, and with numbers that are not finite."""

import copy
import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import native_blocks_reference
import native_calls as calls
import native_dense_reference
import pytest
import torch
import torch.nn.functional as F
from native_blocks_reference import run_block, run_tree
from native_dense_reference import run_steps
from on_avx2 import pytest_on_avx2
from operator_examples import PLAIN, blocks, examples, in_bfloat16, tree, trunk, up
from torch import Tensor

from elastic_cnn.fast import training_ops
from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.kernels.packing import pack, pack_stem, pack_tree
from elastic_cnn.kernels.packing_dense import pack_dense

REASON = training_ops.unavailable() or (load().reason if not ops.ready() else "")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "-")
WITHOUT_TENSORS = {"kernel_level", "bf16_level", "train_level", "train_bf16_level", "train_has_grouped"}
needs_bf16 = pytest.mark.skipif(not training_ops.bf16_level(), reason="this processor has no AVX-512 BF16")
VALUES = [math.nan, math.inf, -math.inf]


def test_every_operator_has_an_example():
    has_bf16 = ops.ready(torch.bfloat16)
    names = [name.removeprefix("elastic_cnn::") for name in torch._C._dispatch_get_all_op_names()
             if name.startswith("elastic_cnn::")]  # fmt: skip
    registered = {name for name in names if not name.startswith("triton_")}  # those of graphics processors
    if not has_bf16:
        registered = {name for name in registered if not name.endswith("_bf16")} | {"bf16_level"}
    assert registered == set(examples()) | WITHOUT_TENSORS


def test_wrong_arguments_are_refused_and_touch_nothing():
    """About 2,400 calls with one argument made wrong each, tensors ending at a page that may not be touched."""
    script = Path(__file__).with_name("fuzz_operators.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    of_training = len(PLAIN) if training_ops.bf16_level() else 0  # again with maps of bfloat16
    assert done.stdout.count("no fault") == len(examples()) + of_training


@pytest.mark.skipif(bool(training_ops.bf16_level()), reason="this processor computes bfloat16")
@pytest.mark.parametrize("name", PLAIN)
def test_what_the_processor_lacks_is_said_when_traced_too(name):
    arguments, operator = in_bfloat16(examples()[name]), getattr(torch.ops.elastic_cnn, name)
    for given in (arguments, [a.to("meta") if isinstance(a, Tensor) else a for a in arguments]):
        with pytest.raises(RuntimeError, match="this processor has no AVX-512 BF16"):
            operator(*given)


@needs_bf16
def test_what_avx2_lacks_is_said():
    assert f"{len(PLAIN)} passed" in pytest_on_avx2("-k", "test_what_the_processor_lacks", __file__)


def test_what_is_asked_about_groups_is_answered():
    has = torch.ops.elastic_cnn.train_has_grouped
    for channels, groups, dtype in ((64, 0, torch.float32), (0, 16, torch.float32), (64, -16, torch.float32),
                                    (64, 16, torch.float16), (64, 16, torch.int64)):  # fmt: skip
        assert not has(channels, groups, dtype)


def assert_none_vanishes(got: Tensor, plain: Tensor, what: str) -> None:
    """Where the plain form is not finite, so is this; where it is finite, this is the same number, or not finite."""
    finite = torch.isfinite(got)
    assert not (finite & ~torch.isfinite(plain)).any(), what
    torch.testing.assert_close(got[finite].to(plain.dtype), plain[finite], rtol=1e-3, atol=1e-3, msg=what)


def runs(name: str, arguments: list[Any]) -> list[Tensor]:
    """The results of an operator of the training form, and the arguments that it writes."""
    operator = getattr(torch.ops.elastic_cnn, name)
    results = operator(*arguments)
    made = [] if results is None else list(results) if isinstance(results, tuple) else [results]
    schema = operator.default._schema.arguments
    return made + [a for a, s in zip(arguments, schema, strict=True) if s.alias_info is not None]


@pytest.mark.parametrize("name", PLAIN)
def test_training_operators_compute_the_plain_form_and_hand_on_what_is_not_finite(name):
    given = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in examples()[name]]
    wanted = PLAIN[name](*copy.deepcopy(given))
    found = runs(name, copy.deepcopy(given))
    torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-9, atol=1e-9)
    for at, argument in enumerate(given):
        if not isinstance(argument, Tensor) or not argument.is_floating_point():
            continue
        for value in VALUES:
            wrong = copy.deepcopy(given)
            spoil(wrong[at], value)
            plain = PLAIN[name](*copy.deepcopy(wrong))
            for got, one in zip(runs(name, wrong), plain, strict=True):
                if got.is_floating_point():
                    assert_none_vanishes(got, one, f"argument {at}: {value}")


@needs_bf16
@pytest.mark.parametrize("name", PLAIN)
def test_training_operators_in_bfloat16(name):
    """Of the plain form in float64 by the norm of the difference: 1%, where rounding a map once costs 0.2%; and what is
    not finite is handed on."""
    given = in_bfloat16(examples()[name])
    as_double = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in given]
    wanted = PLAIN[name](*copy.deepcopy(as_double))
    found = runs(name, copy.deepcopy(given))
    assert len(found) == len(wanted)
    for got, one in zip(found, wanted, strict=True):
        if got.is_floating_point():
            assert float((got.double() - one).norm()) <= 1e-2 * float(one.norm())
        else:
            assert float((got != one).float().mean()) < 0.01  # a value within rounding of zero
    for at, argument in enumerate(given):
        if not isinstance(argument, Tensor) or not argument.is_floating_point():
            continue
        for value in VALUES:
            wrong, exact = copy.deepcopy(given), copy.deepcopy(as_double)
            spoil(wrong[at], value)
            spoil(exact[at], value)
            for got, one in zip(runs(name, wrong), PLAIN[name](*exact), strict=True):
                if got.is_floating_point():
                    assert not (torch.isfinite(got) & ~torch.isfinite(one)).any(), f"argument {at}: {value}"


def spoil(x: Tensor, value: float) -> None:
    """Puts the value into the middle of `x`."""
    x[tuple(size // 2 for size in x.shape)] = value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Those in a description of blocks."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


def residual(inputs: list[Tensor], described: Any) -> tuple[Tensor, Tensor]:
    packed, x = pack(described), inputs[0]
    got = calls.residual_blocks(x.float(), packed.weights, packed.plan)
    for block in described:
        x = run_block(block, x)
    return got, x


def dense(inputs: list[Tensor], described: Any) -> tuple[Tensor, Tensor]:
    packed = pack_dense(described)
    return calls.dense_blocks(inputs[0].float(), packed.weights, packed.plan), run_steps(described, inputs[0])


def joined(inputs: list[Tensor], described: Any) -> tuple[Tensor, Tensor]:
    packed, (x, bottom, child) = pack_tree(described), inputs
    got = calls.dla_tree(x.float(), bottom.float(), [child.float()], packed.weights, packed.plan)
    return got, run_tree(described, x, bottom, [child])


def stem(inputs: list[Tensor], described: Any) -> tuple[Tensor, Tensor]:
    weight, bias = described
    y = F.max_pool2d(F.relu(F.conv2d(inputs[0], weight, bias, 2, 1)), 3, 2, 1)
    return calls.stem(inputs[0].float(), pack_stem(weight), bias.float(), 3, 2), y


SMALL = [(2, 8, 9, 7)]
INFERENCE = {
    "residual_blocks": (residual, blocks, SMALL),
    "dense_blocks": (dense, trunk, SMALL),
    "dla_tree": (joined, tree, [*SMALL, (2, 8, 5, 4), (2, 8, 5, 4)]),
    "stem": (stem, lambda: (torch.randn(40, 3, 3, 3).double(), torch.randn(40).double()), [(2, 3, 15, 11)]),
}


@pytest.mark.parametrize("name", INFERENCE)
def test_inference_operators_hand_on_what_is_not_finite(name, monkeypatch):
    """From each input and each weight; and from one image of a batch to no other."""
    for reference in (native_blocks_reference, native_dense_reference):
        monkeypatch.setattr(reference, "up2", up)
    run, describe, sizes = INFERENCE[name]
    described, inputs = describe(), [torch.randn(size).double() for size in sizes]
    for tensors in (inputs, list(tensors_of(described))):
        for at, tensor in enumerate(tensors):
            before = tensor.clone()
            for value in VALUES:
                spoil(tensor, value)
                got, plain = run(inputs, described)
                assert_none_vanishes(got, plain, f"{'input' if tensors is inputs else 'weight'} {at}: {value}")
                if tensors is inputs:
                    assert torch.isfinite(got[0]).all(), value  # the value lies in the second image
                    assert not torch.isfinite(got[1]).all(), value
                tensor.copy_(before)
