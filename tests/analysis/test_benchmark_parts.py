"""The benchmark's arithmetic: medians and intervals, turns, the roofline, tables."""

import mmap

import pytest
import torch
from torch import nn

from elastic_cnn.analysis.benchmark import Request, format_table
from elastic_cnn.analysis.benchmark.breakdown import breakdown, format_breakdown
from elastic_cnn.analysis.benchmark.forms import Subject, Unavailable, prepare
from elastic_cnn.analysis.benchmark.roofline import Peaks, bound
from elastic_cnn.analysis.benchmark.worker import peak, resident
from elastic_cnn.measure.machine import describe_machine
from elastic_cnn.nn.complexity import count
from elastic_cnn.zoo import create_model


def test_the_roofline_of_one_convolution():
    """3x3, 8 -> 16 channels on 10x10, 2 images: worked by hand."""
    network = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False))
    flops = 2 * 2 * 100 * 16 * 8 * 9
    moved = 4 * (2 * 100 * 8 + 2 * 100 * 16 + 16 * 8 * 9)
    slow = bound(network, 2, 10, Peaks(flops=1e12, bytes=1e3, threads=1))
    assert slow.flops == flops
    assert slow.seconds == pytest.approx(moved / 1e3)
    assert slow.memory == 1
    fast = bound(network, 2, 10, Peaks(flops=1e3, bytes=1e12, threads=1))
    assert fast.seconds == pytest.approx(flops / 1e3)
    assert fast.memory == 0
    narrow = Peaks(flops=1e3, bytes=1e3, threads=1, bf16_flops=1e12)
    assert bound(network, 2, 10, narrow, "bfloat16").seconds == pytest.approx(moved / 2 / 1e3)
    with pytest.raises(ValueError, match="peak in float16 is not known"):
        bound(network, 2, 10, narrow, "float16")


def test_autocast_in_training_keeps_the_weights():
    """`--dtypes bfloat16` with training: weights float32, maps bfloat16."""
    from elastic_cnn.analysis.benchmark.forms import training_run

    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    seen = []
    network[0].register_forward_hook(lambda layer, inputs, output: seen.append((output.dtype, layer.weight.dtype)))
    training_run(network, "eager", torch.randn(2, 3, 8, 8), autocast=True)()
    assert seen == [(torch.bfloat16, torch.float32)]


def test_the_roofline_counts_the_operations_of_the_complexity_tables():
    network = create_model("resnext_small_elastic")
    found = bound(network, 3, 64, Peaks(1e9, 1e9, 1))
    assert found.flops == 2 * 3 * count(network, (3, 64, 64)).macs


def test_time_is_told_apart_by_kind():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.AvgPool2d(2)
    )
    images = torch.randn(2, 4, 16, 16)
    kinds = dict(breakdown(lambda: network(images)))
    assert {"1x1 convolutions", "grouped 3x3 convolutions", "batch norm", "ReLU", "average pooling"} <= set(kinds)
    assert all(value > 0 for value in kinds.values())
    backward = dict(breakdown(lambda: network(images).sum().backward()))
    assert {"1x1 convolutions, backward", "grouped 3x3 convolutions, backward"} <= set(backward)
    text = format_breakdown("forward", [("sums", 1.0), ("products", 3.0), ("other", 0.001)])
    assert text.splitlines()[1].split() == ["sums", "1.0", "ms", "25.0%"]


def test_bad_requests():
    for wrong, message in (
        ({"forms": ("magic",)}, "unknown forms 'magic'; choose from eager"),
        ({"dtypes": ("int4",)}, "unknown dtypes 'int4'"),
        ({"batches": (0,)}, "batches must be at least 1"),
        ({"batches": ()}, "nothing to measure"),
        ({"rounds": 1}, "the rounds at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            Request("resnet18", **wrong)


def test_forms_that_cannot_be_had_say_why():
    for form in ("native", "onnxruntime", "openvino"):
        with pytest.raises(Unavailable, match=r"float32( and bfloat16)? on the CPU alone"):
            prepare(Subject("resnext_small", form, "inference", 1, 64, "float16"))
    with pytest.raises(Unavailable, match="does not train"):
        prepare(Subject("resnext_small", "openvino", "training", 1, 64))
    with pytest.raises(ValueError, match="unknown network"):
        prepare(Subject("resnext_smal", "eager", "inference", 1, 64))


def test_a_training_step_trains():
    """The timed step is a whole one: every parameter moves."""
    torch.manual_seed(0)
    from elastic_cnn.analysis.benchmark.forms import training_run

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    before = [parameter.clone() for parameter in network.parameters()]
    run = training_run(network, "eager", torch.randn(2, 3, 8, 8))
    for _ in range(20):
        run()
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.skipif(not resident(), reason="the system does not say how much memory a process holds")
def test_memory_is_that_of_the_call():
    """A call that fills 80 MB and gives them back; pages of its own, as the allocator may hold as much that is free."""

    def fill() -> None:
        with mmap.mmap(-1, 80_000_000) as memory:
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1

    held = [torch.ones(7_000_000) for _ in range(6)]
    del held
    found = peak(fill, resident())
    assert found is None or 75e6 < found < 85e6


def test_tables_show_every_figure_and_what_is_missing():
    spread = {"median": 2.0, "low": 1.9, "high": 2.1}
    row = {"network": "a", "form": "eager", "ms": spread, "images_per_s": 500.0, "memory": 3_000_000, "rounds": 9}
    cell = {
        "job": "inference", "batch": 1, "dtype": "float32", "threads": 2,
        "rows": [{**row, "ratios": {"eager": spread}}, {**row, "form": "native", "memory": None}],
        "unavailable": [{"network": "a", "form": "openvino", "reason": "not here"}],
    }  # fmt: skip
    text = format_table({"machine": describe_machine(), "request": {"size": 64}, "cells": [cell]})
    assert "inference, batch 1, 64x64, float32, 2 threads" in text
    assert "2.00 (1.90 to 2.10)" in text
    assert "1.9 to 2.1" in text
    assert "not measured: a, openvino: not here" in text
    assert "of FMA peak" not in text  # a column that nothing is known of
    assert "in brackets" in text
    del cell["rows"][0]["ratios"]
    alone = format_table({"machine": describe_machine(), "request": {"size": 64}, "cells": [cell]})
    assert "of base" not in alone
    assert "in brackets" not in alone
    assert f"torch {torch.__version__.split('+')[0]}" in text
