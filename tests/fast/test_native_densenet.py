"""Whole DenseNets with native trunks: their error against float64 beside the plain form's, and what is reported."""

import copy

import pytest
import timm
import torch
from random_norms import random_norms
from timm.models.densenet import DenseNet

import elastic_cnn
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.fast.native_dense import NativeDenseBlocks, NativeDenseNet
from elastic_cnn.fast.native_stem import NativeStem
from elastic_cnn.kernels import native as loader
from elastic_cnn.kernels import ops

pytestmark = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {loader.load().reason}")

SMALL = {"block_config": (2, 3, 3, 2), "num_classes": 7}


def build(name: str = "densenet_small_elastic", **arguments) -> torch.nn.Module:
    """A small network in eval mode whose norms have statistics of their own."""
    return random_norms(elastic_cnn.create_model(name, **{**SMALL, **arguments}), weight=(-1.5, 1.5))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("densenet_small", {}),
        ("densenet_small_elastic", {}),
        ("densenet_small_elastic", {"spec": {1: {"shares": (0.25, 0.75)}, 3: {"downsample": "bilinear"}}}),
        ("densenet161", {"block_config": (1, 2, 2, 1), "growth_rate": 12}),  # panels that are not full
    ],
)
def test_outputs_are_as_near_to_float64_as_the_plain_form(name, arguments):
    network = build(name, **arguments)
    fast = optimize_for_inference(network, native=True)
    assert isinstance(fast, NativeDenseNet)
    assert isinstance(fast.native_stem, NativeStem)
    for size in ((64, 64), (75, 50)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            exact = copy.deepcopy(network).double()(x.double())
            plain, native = network(x), fast(x)
        assert (native - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6 * exact.abs().max()


def test_the_report_counts_layers_and_names_none_that_became_native():
    report = optimize_for_inference(build(), native="auto").optimization_report
    assert "10 blocks in 1 calls" in str(report)
    assert not report.left


def test_the_trunk_and_its_parts_share_their_weights():
    fast = optimize_for_inference(build(), native=True)
    parts = [part for part in fast.features if isinstance(part, NativeDenseBlocks)]
    assert len(parts) == 8  # four blocks, three transitions, the last norm
    whole = fast.native_trunk.weights.untyped_storage().data_ptr()
    assert all(part.weights.untyped_storage().data_ptr() == whole for part in parts)


def test_intermediate_features_and_hooks_still_work():
    network = build()
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network.forward_intermediates(x, intermediates_only=True)
        got = fast.forward_intermediates(x, intermediates_only=True)
        for map_got, map_wanted in zip(got, wanted, strict=True):
            torch.testing.assert_close(map_got, map_wanted, rtol=1e-4, atol=1e-4)
        seen = []
        fast.features.denseblock2.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)
    assert len(seen) == 1


def test_a_pyramid_of_features_gets_native_blocks():
    network = build(features_only=True)
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    assert sum(isinstance(module, NativeDenseBlocks) for module in fast.modules()) == 7
    with torch.no_grad():
        for got, wanted in zip(fast(x), network(x), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"aa_layer": timm.layers.BlurPool2d, "aa_stem_only": False}, "BlurPool2d"),  # its transitions blur
        ({"act_layer": "silu"}, "SiLU"),
        ({"stem_type": "deep"}, ""),  # the stem stays, the trunk is native
    ],
)
def test_what_cannot_be_native_is_said_and_still_right(change, left):
    network = build("densenet_small", **change)
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    reasons = [reason for reason in fast.optimization_report.left.values() if reason.startswith("not native")]
    assert len(reasons) == (0 if not left else 7 if "act_layer" in change else 3)
    assert all(left in reason for reason in reasons)
    assert isinstance(fast, NativeDenseNet) == (not left)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)


def test_layers_that_hooks_look_at_keep_their_block():
    network = build()
    network.features.denseblock2.denselayer2.norm1.register_forward_hook(lambda module, inputs, output: None)
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    assert "hooks" in fast.optimization_report.left["features.denseblock2"]
    assert type(fast) is DenseNet
    assert sum(isinstance(module, NativeDenseBlocks) for module in fast.modules()) == 6
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)


def test_two_low_resolutions_keep_their_form():
    network = build(spec={2: {"scales": (1, 2, 4), "shares": (0.5, 0.25, 0.25)}})
    fast, x = optimize_for_inference(network, native=True), torch.randn(1, 3, 64, 64)
    assert "low resolution" in fast.optimization_report.left["features.denseblock2"]
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-4, atol=1e-4)


def test_export_and_compile_see_the_operator():
    fast, x = optimize_for_inference(build(), native=True), torch.randn(1, 3, 64, 64)
    program = torch.export.export(fast, (x,))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"elastic_cnn.stem.default", "elastic_cnn.dense_blocks.default"} <= names
    compiled = torch.compile(fast, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        wanted = fast(x)
        torch.testing.assert_close(program.module()(x), wanted, rtol=0, atol=0)
        torch.testing.assert_close(compiled(x), wanted, rtol=0, atol=0)
