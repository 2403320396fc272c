"""The roofline model of time: hand-counted bytes and FLOPs, and the search that uses it."""

import math

import pytest
import timm
import torch
from torch import nn

from benchmarks.depth_search.machine import H200, measure_cpu
from benchmarks.depth_search.model import Machine, by_block, fuse, predict, traffic
from benchmarks.depth_search.search import Setting, main, report, search
from benchmarks.depth_search.trace import trace
from elastic_cnn import elasticize
from elastic_cnn.nn.complexity import count

MAP = 4 * 8 * 8 * 4  # bytes of a map of 4 channels, 8 x 8, float32
INPUT = 3 * 8 * 8 * 4
WEIGHT = 3 * 4 * 4
FAST = Machine("a machine without memory limits", 1e9, math.inf, 0, math.inf, 0.0)
WIDE = Machine("a machine that computes in no time", math.inf, 1e9, 0, math.inf, 0.0)


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)).eval()


def test_operators_of_a_tiny_network():
    ops = trace(tiny(), (3, 8, 8))
    assert [op.name for op in ops][:1] == ["convolution"]
    assert [op.place for op in ops] == ["0", "1", "2", "3"]
    assert [op.kind for op in ops] == ["pointwise", "", "", ""]
    assert ops[0].flops == 2 * 8 * 8 * 3 * 4
    assert sum(ops[0].inputs.values()) == INPUT + WEIGHT
    assert len(ops[0].weights) == 1


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("pointwise", [INPUT + MAP, 2 * MAP, MAP + MAP // 4]),  # convolution with its norm; ReLU; pooling
        ("tail", [INPUT + MAP, MAP + MAP // 4]),  # ReLU and pooling in one: the map between is never read again
        ("epilogue", [INPUT + MAP, MAP + MAP // 4]),  # all but pooling in the convolution
    ],
)
def test_bytes_of_maps_by_hand(fusion, expected):
    moved = [maps for maps, _ in traffic(fuse(trace(tiny(), (3, 8, 8)), fusion))]
    assert moved == expected


def test_every_operator_alone():
    assert len(fuse(trace(tiny(), (3, 8, 8)))) == 4
    with pytest.raises(ValueError, match="unknown fusion 'all'"):
        fuse([], "all")


def test_a_map_that_others_read_is_written():
    """A shortcut around a convolution: ReLU writes it, the convolution reads it, and so does the sum."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = torch.relu(x)
            return self.convolution(y) + y

    kernels = fuse(trace(Residual(), (4, 8, 8)), "pointwise")
    assert [maps for maps, _ in traffic(kernels)] == [2 * MAP, 2 * MAP, 3 * MAP]


def test_roofline():
    """Without memory limits the time is that of the FLOPs, without arithmetic that of the bytes."""
    ops = trace(tiny(), (3, 8, 8))
    assert sum(predict(ops, FAST, "epilogue").values()) == pytest.approx(ops[0].flops / 1e9)
    bytes_moved = sum(maps + weights for maps, weights in traffic(fuse(ops, "epilogue")))
    assert sum(predict(ops, WIDE, "epilogue").values()) == pytest.approx(bytes_moved / 1e9)
    slow = Machine("slow in both", 1e9, 1e9, 0, math.inf, 1.0)
    two = predict(ops, slow, "epilogue")
    assert sum(two.values()) > 2.0  # a second for each of the two kernels
    assert by_block(two, ["0", "3"]).keys() == {"0", "3"}


def test_cached_maps_move_faster_and_weights_do_not():
    ops = trace(tiny(), (3, 8, 8))
    near = Machine("a large cache", math.inf, 1.0, 1e9, math.inf, 0.0)
    assert sum(predict(ops, near, "none").values()) == pytest.approx(sum(w for _, w in traffic(fuse(ops))))


@pytest.mark.parametrize("name", ["resnext_small", "resnext_small_elastic_fast"])
def test_flops_are_those_of_the_counter_and_training_takes_three_times_as_many(name):
    network = timm.create_model(name, num_classes=5, device="meta")
    forward = sum(op.flops for op in trace(network, (3, 64, 64)))
    assert forward == 2 * count(network, (3, 64, 64)).macs
    step = trace(network, (3, 64, 64), batch=2, train=True)
    stem = next(op.flops for op in step if op.name == "convolution")  # whose input needs no gradient
    assert sum(op.flops for op in step) == 2 * 3 * forward - stem
    blocks = [f"layer{stage}" for stage in range(1, 5)]
    assert set(by_block({op.place: 1.0 for op in step}, blocks)) == {"", *blocks}


def test_the_gpu_kernels_lower_the_modelled_time_of_an_elastic_network():
    """A fused tail saves bytes, so a device bound by memory gains; the base has no pooling that it could save."""
    base = timm.create_model("resnext_small", device="meta")
    elastic = elasticize(base)
    times = {}
    for key, network in (("base", base), ("elastic", elastic)):
        ops = trace(network, (3, 128, 128), 256, dtype=torch.bfloat16)
        times[key] = [sum(predict(ops, H200, fusion).values()) for fusion in ("none", "pointwise", "tail")]
    assert times["elastic"][0] > times["elastic"][1] > times["elastic"][2]
    assert times["base"][0] > times["base"][1] == times["base"][2]


SETTINGS = [
    Setting("inference", H200, "tail", 64, dtype=torch.bfloat16, limit=1.2),
    Setting("training", H200, "none", 64, train=True, limit=1.2),
]


def test_search():
    """What it finds keeps its promises when built and counted for real, and prices are those of a direct trace."""
    found = search("resnext_small", SETTINGS)
    assert found
    assert [f.elastic_blocks for f in found] == sorted((f.elastic_blocks for f in found), reverse=True)
    base = timm.create_model("resnext_small", device="meta")
    size = base.pretrained_cfg["input_size"]
    for network in (found[0], found[-1]):
        plain = timm.create_model("resnext_small", layers=network.depths, device="meta")
        built = elasticize(plain, network.spec)
        ours, theirs = count(built, size), count(base, size)
        assert ours.parameters / theirs.parameters == pytest.approx(network.parameters, rel=1e-9)
        assert ours.macs / theirs.macs == pytest.approx(network.macs, rel=1e-9)
        assert abs(network.parameters - 1) <= 0.02
        assert network.macs <= 1
        assert len(built.elastic_report.converted) == network.elastic_blocks
        for setting in SETTINGS:
            direct = [
                sum(predict(trace(n, size, setting.batch, setting.train, setting.dtype), H200, setting.fusion).values())
                for n in (built, base)
            ]
            assert direct[0] / direct[1] == pytest.approx(
                network.times[setting.name], rel=0.03
            )  # a stage's last block pools nothing
            assert network.times[setting.name] <= setting.limit
    assert ",".join(map(str, found[0].depths)) in report(found, SETTINGS)


def test_search_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="ResNet family"):
        search("densenet121", SETTINGS)
    with pytest.raises(ValueError, match="elastic already"):
        search("resnext_small_elastic", SETTINGS)


def test_a_measured_machine():
    """Not how fast, only that the figures make sense."""
    machine = measure_cpu(0.01)
    assert machine.peak > 1e8
    assert machine.bandwidth > 1e7
    assert set(machine.efficiency) == {"pointwise", "grouped", "dense", "matmul"}
    assert max(machine.efficiency.values()) == 1.0
    assert min(machine.efficiency.values()) > 0


def test_command(capsys):
    threads = torch.get_num_threads()
    assert main(["resnext_small", "--top", "2", "--threads", str(threads), "--cpu-limit", "10"]) == 0
    printed = capsys.readouterr().out
    assert "networks fit" in printed
    assert "gpu train b256" in printed
