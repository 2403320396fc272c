"""Cases of `test_triton_kernels.py`: networks whose blocks run the kernels, against the same networks run plainly."""

import copy

import pytest
import timm
import torch
from random_norms import random_norms
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from elastic_cnn import ElasticSpec, elasticize, set_blend
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.fast.gpu import GpuBottleneck, GpuResidual, PoolHandingSequential, use_gpu_kernels
from elastic_cnn.kernels.triton import functions

TINY = {"layers": (3, 2, 1, 1), "channels": (8, 8, 8, 8), "cardinality": 2, "base_width": 32, "stem_width": 8}


def network(spec=None, **kwargs):
    """A tiny elastic ResNeXt in float64 whose norms do something."""
    torch.manual_seed(0)
    net = elasticize(ResNet(block=Bottleneck, num_classes=3, **{**TINY, **kwargs}), spec).double()
    return random_norms(net).train().to(memory_format=torch.channels_last)


def images(height=37, width=32):
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.to(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch):
    """How often a pooled map had to be computed by itself, and how often the tail wrote one."""
    counts = {"pool": 0, "tail": 0, "tail with pool": 0}
    pool, tail, train = functions.area_pool, functions.elastic_tail, functions.elastic_tail_train

    def count_pool(x):
        counts["pool"] += 1
        return pool(x)

    def counted(function):
        def count_tail(*args):
            counts["tail with pool" if args[-1] else "tail"] += 1
            return function(*args)

        return count_tail

    monkeypatch.setattr("elastic_cnn.fast.gpu.area_pool", count_pool)
    monkeypatch.setattr("elastic_cnn.fast.gpu.elastic_tail", counted(tail))
    monkeypatch.setattr("elastic_cnn.fast.gpu.elastic_tail_train", counted(train))
    return counts


def test_evaluation(calls):
    net = network().eval()
    fused = copy.deepcopy(net)
    report = use_gpu_kernels(fused)
    assert list(report.fused) == ["layer1.0", "layer1.1", "layer1.2", "layer2.1"]
    assert report.left == {}
    assert report.notes == ["a block hands the next one its pooled map in layer1"]
    with torch.no_grad():
        torch.testing.assert_close(fused(images()), net(images()), rtol=1e-10, atol=1e-10)
    assert calls == {"pool": 2, "tail": 2, "tail with pool": 2}  # layer1.1 and layer1.2 are handed theirs


def test_training():
    net = network().train()
    fused = copy.deepcopy(net)
    names = list(fused.state_dict())
    use_gpu_kernels(fused)
    assert isinstance(fused.layer1, PoolHandingSequential)
    assert isinstance(fused.layer1[0], GpuResidual)
    assert list(fused.state_dict()) == names
    outputs = [n(images()) for n in (fused, net)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    for output in outputs:
        output.square().sum().backward()
    for (name, ours), (_, plain) in zip(fused.named_parameters(), net.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-7, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
    for (name, ours), (_, plain) in zip(fused.named_buffers(), net.named_buffers(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")


def test_optimized_for_inference():
    net = network().eval()
    fast = optimize_for_inference(net, images())
    report = use_gpu_kernels(fast)
    assert len(report.fused) == 4
    assert isinstance(fast.layer1[0], GpuBottleneck)
    with torch.no_grad():
        torch.testing.assert_close(fast(images(32, 35)), net(images(32, 35)), rtol=1e-9, atol=1e-9)


def test_optimized_on_a_gpu(monkeypatch):
    """On CUDA the optimized form has the kernels by itself; on the CPU it has not."""
    net = network(layers=(2, 1, 1, 1)).eval()
    assert not isinstance(optimize_for_inference(net, images()).layer1[0], GpuBottleneck)
    monkeypatch.setattr("elastic_cnn.fast.optimize.is_on_gpu", lambda _: True)
    fast = optimize_for_inference(net, images())
    assert isinstance(fast.layer1[0], GpuBottleneck)
    assert isinstance(fast.layer1, PoolHandingSequential)
    assert "2 blocks end in one kernel on the GPU" in str(fast.optimization_report)


def test_one_graph_under_compile():
    """Captured without breaks, forward and backward, the kernels as operators in it."""
    net = network(layers=(2, 1, 1, 1)).train()
    fused = copy.deepcopy(net)
    use_gpu_kernels(fused)
    torch._dynamo.reset()
    graph = torch.compile(fused, fullgraph=True, backend="aot_eager")
    output = graph(images())
    torch.testing.assert_close(output, net(images()), rtol=1e-9, atol=1e-9)
    output.sum().backward()
    assert all(p.grad is not None for p in fused.parameters())
    torch._dynamo.reset()


def test_dla():
    torch.manual_seed(0)
    shape = {"levels": (1, 1, 1, 1, 1, 1), "channels": (4, 4, 8, 8, 8, 8), "cardinality": 2, "base_width": 32}
    net = timm.create_model("dla60x_elastic", num_classes=3, **shape).double().eval()
    fused = copy.deepcopy(net)
    assert use_gpu_kernels(fused).fused
    with torch.no_grad():
        torch.testing.assert_close(fused(images(64, 64)), net(images(64, 64)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("spec", "kwargs", "reason"),
    [
        (ElasticSpec((1, 4)), {}, "resolution of 1/4"),
        (ElasticSpec((1, 2, 4), (0.5, 0.25, 0.25)), {"cardinality": 4}, "3 branches"),
        (ElasticSpec(upsample="nearest"), {}, "bilinearly"),
        (ElasticSpec(downsample="trained"), {}, "averaged over 2 x 2"),
        (None, {"block_args": {"attn_layer": "se"}}, "one batch norm"),
        (None, {"drop_path_rate": 0.1}, "drops paths"),
        (None, {"act_layer": nn.SiLU}, "SiLU"),
    ],
)
def test_what_the_kernels_do_not_compute_is_left_and_said(spec, kwargs, reason):
    net = network(spec, **kwargs)
    report = use_gpu_kernels(net)
    assert report.left
    assert all(reason in why for why in report.left.values())
    assert not set(report.fused) & set(report.left)


def test_blended_blocks_compute_their_plain_form(calls):
    net = network(layers=(2, 1, 1, 1)).eval()
    fused = copy.deepcopy(net)
    use_gpu_kernels(fused)
    for n in (net, fused):
        set_blend(n, 0.5)
    with torch.no_grad():
        torch.testing.assert_close(fused(images()), net(images()), rtol=1e-10, atol=1e-10)
    assert set(calls.values()) == {0}
