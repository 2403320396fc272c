"""Whole networks with native blocks: their error against float64 beside the plain form's, and what is reported."""

import copy

import pytest
import timm
import torch
from random_norms import random_norms
from timm.models.dla import DlaBottleneck

import elastic_cnn
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.fast.native import NativeBlocks, NativeResNet, NativeRow, is_native
from elastic_cnn.fast.native_dla import NativeDlaTree
from elastic_cnn.kernels import native as loader
from elastic_cnn.kernels import ops
from elastic_cnn.surgery import elasticize
from elastic_cnn.zoo.elastic_dla import AnySizeDLA

pytestmark = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {loader.load().reason}")

NETWORKS = {
    "resnext_small": {},
    "resnext_small_elastic": {},
    "se": {"block_args": {"attn_layer": "se"}},
    "resnet": {"cardinality": 1, "base_width": 64, "channels": (16, 24, 32, 40)},
}
NETWORKS["elastic resnet"] = NETWORKS["resnet"]  # its branches join before the last convolution
NETWORKS["elastic resnet, se"] = NETWORKS["resnet"] | NETWORKS["se"]


def build(kind: str) -> torch.nn.Module:
    """A small network in eval mode whose norms have statistics of their own."""
    name = kind if kind.startswith("resnext") else ("resnext_small_elastic" if kind == "se" else "resnext_small")
    network = elastic_cnn.create_model(name, num_classes=7, **NETWORKS[kind])
    return random_norms(elasticize(network) if kind.startswith("elastic") else network)


@pytest.mark.parametrize("kind", NETWORKS)
def test_outputs_are_as_near_to_float64_as_the_plain_form(kind):
    network = build(kind)
    fast = optimize_for_inference(network, native=True)
    assert isinstance(fast, NativeResNet)
    for size in ((64, 64), (75, 50)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            exact = build_double(network)(x.double())
            plain, native = network(x), fast(x)
        scale = exact.abs().max()
        assert (native - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6 * scale


def build_double(network: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(network).double()


def test_the_report_counts_native_blocks():
    fast = optimize_for_inference(build("resnext_small_elastic"), native="auto")
    assert "12 blocks in 1 calls" in str(fast.optimization_report)


def test_blocks_whose_branches_join_before_conv3_are_native():
    fast = optimize_for_inference(build("elastic resnet"), native=True)
    assert "9 blocks in 1 calls" in str(fast.optimization_report)


def test_intermediate_features_and_hooks_still_work():
    network = build("resnext_small_elastic")
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network.forward_intermediates(x, intermediates_only=True)
        for got, map_wanted in zip(fast.forward_intermediates(x, intermediates_only=True), wanted, strict=True):
            torch.testing.assert_close(got, map_wanted, rtol=1e-4, atol=1e-4)
        seen = []
        fast.layer2.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    assert len(seen) == 1


def test_gradients_through_native_kernels_are_refused():
    """Where none is asked for, a call outside of no_grad is as good as one inside."""
    dla = elastic_cnn.create_model("dla46_c", num_classes=3).eval()
    for network in (build("resnext_small"), dla):
        fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected = fast(x)
        assert torch.equal(fast(x), expected)
        with pytest.raises(RuntimeError, match=r"no gradients in its native kernels.*native=False"):
            fast(x.requires_grad_())


def test_what_cannot_be_native_is_said_and_still_right():
    network = timm.create_model("resnet50d", num_classes=5).eval()  # its shortcuts pool before they project
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    assert any("shortcut" in reason for reason in fast.optimization_report.left.values())
    assert sum(isinstance(module, NativeBlocks) for module in fast.modules()) == 13  # of 16
    assert "13 blocks in 4 calls" in str(fast.optimization_report)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("elastic", [False, True])
def test_trees_of_dla_are_native(elastic):
    """Levels of every kind: a tree alone, trees within trees, roots with and without a child from the level below."""
    network = small_dla(elastic)
    fast = optimize_for_inference(network, native=True)
    assert sum(isinstance(module, NativeDlaTree) for module in fast.modules()) == 8
    assert "16 blocks in 8 calls" in str(fast.optimization_report)
    for size in ((64, 96), (75, 50)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            exact = build_double(network)(x.double())
            plain, native = network(x), fast(x)
        assert (native - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6 * exact.abs().max()


def small_dla(elastic: bool) -> torch.nn.Module:
    channels = (16, 16, 48, 64, 80, 96)
    network = AnySizeDLA(
        levels=(1, 1, 1, 2, 3, 1), channels=channels, cardinality=8, base_width=8, block=DlaBottleneck, num_classes=3
    )
    return random_norms(elasticize(network) if elastic else network)


def test_blocks_outside_rows_are_reported():
    """A tree keeps its form for one block that the kernels do not know; the other block then stands alone."""
    network = small_dla(elastic=False)
    network.level2.tree1.relu = torch.nn.GELU()
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    assert "GELU" in fast.optimization_report.left["level2"]
    assert "from outside" in fast.optimization_report.left["level2.tree2"]
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-3, atol=1e-4)


def test_blocks_that_hooks_look_at_stay():
    network = build("resnext_small")
    network.layer1[0].conv2.register_forward_hook(lambda module, inputs, output: None)
    fast = optimize_for_inference(network, native=True)
    assert "hooks" in fast.optimization_report.left["layer1.0"]
    assert not isinstance(fast, NativeResNet)


def test_export_holds_the_native_operators():
    fast, x = optimize_for_inference(build("resnext_small_elastic"), native=True), torch.randn(1, 3, 64, 64)
    program = torch.export.export(fast, (x,))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"elastic_cnn.stem.default", "elastic_cnn.residual_blocks.default"} <= names
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), fast(x), rtol=0, atol=0)


def test_blocks_of_a_row_are_called_hooked_and_copied_one_by_one():
    network, x = build("resnext_small_elastic"), torch.randn(1, 3, 64, 64)
    fast, seen = copy.deepcopy(optimize_for_inference(network, native=True)), []
    assert isinstance(fast.layer1, NativeRow)
    assert len(fast.layer1) == len(network.layer1) > 1
    whole = fast.native_trunk.weights.untyped_storage().data_ptr()
    assert all(block.weights.untyped_storage().data_ptr() == whole for block in fast.layer1)
    maps = [x[:, :1].expand(-1, network.layer1[0].branches.high.transform[0].in_channels, -1, -1)]
    with torch.no_grad():
        wanted = network.layer1(maps[0])
        torch.testing.assert_close(fast.layer1(maps[0]), wanted, rtol=1e-4, atol=1e-4)
        for block in fast.layer1:
            maps.append(block(maps[-1]))
        torch.testing.assert_close(maps[-1], fast.layer1(maps[0]), rtol=1e-5, atol=1e-5)
        fast.layer1[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    assert len(seen) == 1


def test_float64_networks_keep_their_form_under_auto():
    fast = optimize_for_inference(build("resnext_small").double(), native="auto")
    assert not any(isinstance(module, NativeBlocks) for module in fast.modules())
    assert "float32" in str(fast.optimization_report)


def test_auto_is_the_default_and_takes_the_faster_form_on_an_example(monkeypatch):
    network, x = build("resnext_small"), torch.randn(2, 3, 64, 64)
    assert is_native(optimize_for_inference(network))
    seconds = iter((2.0, 1.0, 1.0, 2.0))
    monkeypatch.setattr("elastic_cnn.fast.native.least_seconds", lambda form, example: next(seconds))
    assert is_native(optimize_for_inference(network, x))
    plain = optimize_for_inference(network, x)
    assert not is_native(plain)
    assert "on (2, 3, 64, 64) they took 2e+03 ms, the PyTorch form 1e+03 ms" in str(plain.optimization_report)
    monkeypatch.undo()
    for fast in (plain, optimize_for_inference(network, (x,))):  # whichever was faster
        torch.testing.assert_close(fast(x), network(x), rtol=1e-3, atol=1e-4)


def test_native_takes_no_other_word():
    with pytest.raises(ValueError, match="'always'"):
        optimize_for_inference(build("resnext_small"), native="always")


def test_without_kernels_auto_serves_the_plain_form_and_true_raises(monkeypatch):
    monkeypatch.setattr(ops, "ready", lambda dtype: False)
    monkeypatch.setattr(ops, "load", lambda: loader.Loaded(None, "no C++ compiler found"))
    fast = optimize_for_inference(build("resnext_small"), native="auto")
    assert "no C++ compiler found" in str(fast.optimization_report)
    with pytest.raises(ops.NativeKernelsMissing, match="no C\\+\\+ compiler"):
        optimize_for_inference(build("resnext_small"), native=True)
