"""Our networks can be captured as graphs: TorchScript, torch.fx, torch.export and torch.compile."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from citizens import FAMILIES, NAMES, build, gradients, images
from torch._dynamo.utils import counters
from torch.export import Dim

from elastic_cnn import elasticize

# A graph may fuse or reorder sums: some ulps of float32 a layer, over some tens of layers.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIZES = [(2, 3, 64, 64), (1, 3, 97, 66), (3, 3, 66, 131)]  # odd and even on every level

# Fewer blocks where capture is slow: still blocks of each kind, elastic and not.
FEWER: dict[str, dict[str, Any]] = {
    "resnext50_elastic": {"layers": (2, 2, 1, 1)},
    "densenet201_elastic": {"block_config": (2, 2, 1, 1)},
    "dla60x_elastic": {"levels": (1, 1, 1, 1, 1, 1)},
}

old_jit = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")


def agree(graph: Callable[..., Any], network: Any, sizes: list[tuple[int, ...]] = SIZES) -> None:
    for size in sizes:
        with torch.no_grad():
            torch.testing.assert_close(graph(images(*size)), network(images(*size)), **TOLERANCE)


@old_jit
@pytest.mark.parametrize("name", NAMES)
def test_torchscript(name: str) -> None:
    """Scripted, saved and loaded, it computes the same for all sizes."""
    network = build(name, scriptable=True)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(network), buffer)
    buffer.seek(0)
    agree(torch.jit.load(buffer), network)


@old_jit
@pytest.mark.parametrize(
    "base",
    ["vgg11_bn", "resnetv2_18", "nf_regnet_b0", "regnety_002", "repvgg_a0", "convnext_atto", "mobilenetv3_small_050"],
)
def test_torchscript_of_elasticized_networks(base: str) -> None:
    network = elasticize(timm.create_model(base, num_classes=5, scriptable=True)).eval()
    agree(torch.jit.script(network), network, SIZES[1:2])


@pytest.mark.parametrize("name", NAMES)
def test_fx(name: str) -> None:
    """Traced in the mode that it is to run in, which timm's fused norms write into the graph."""
    network = build(name)
    agree(torch.fx.symbolic_trace(network), network)
    network.train()
    agree(torch.fx.symbolic_trace(network), network, SIZES[:1])


@pytest.mark.parametrize("name", FAMILIES)
def test_export_with_any_batch_and_size(name: str) -> None:
    """One exported graph serves odd and even sizes, from 65 pixels up: below, the coarsest map is a single pixel."""
    network = build(name, **FEWER[name])
    shapes = {0: Dim("batch", min=1, max=64), 2: Dim("height", min=65, max=1024), 3: Dim("width", min=65, max=1024)}
    program = torch.export.export(network, (images(2, 3, 96, 128),), dynamic_shapes=(shapes,))
    agree(program.module(), network, [(2, 3, 96, 128), (1, 3, 97, 66), (3, 3, 224, 131)])


def test_export_with_static_size() -> None:
    """Without dynamic sizes the graph is the plain one: it pools with `ceil_mode`, and does not pad."""
    network = build("resnext50_elastic")
    program = torch.export.export(network, (images(2, 3, 65, 64),))
    agree(program.module(), network, [(2, 3, 65, 64)])
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.avg_pool2d.default" in operators
    assert "aten.pad.default" not in operators


@pytest.mark.parametrize("name", FAMILIES)
def test_compile_without_graph_breaks_or_recompilation(name: str) -> None:
    """One graph for all batches of one size; a second one, then, for all sizes and batches of all sizes."""
    network = build(name, **FEWER[name])
    torch._dynamo.reset()
    counters.clear()
    graph = torch.compile(network, fullgraph=True, backend="eager")
    agree(graph, network, [(2, 3, 96, 96)] * 3)
    assert counters["stats"]["unique_graphs"] == 1
    agree(graph, network, [(3, 3, 97, 66)])
    assert counters["stats"]["unique_graphs"] == 2
    agree(graph, network, [(4, 3, 67, 98), (5, 3, 98, 99), (2, 3, 128, 96)])
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_training(name: str) -> None:
    """Forward and backward through one captured graph: the gradients of the plain network."""
    network = (
        build(name, **FEWER[name]).double().train()
    )  # in float64 no tolerance for rounding in small batches is due
    twin = copy.deepcopy(network)
    torch._dynamo.reset()
    graph = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for module in (network, graph):
        module(images(2, 3, 64, 64).double()).pow(2).sum().backward()
    torch.testing.assert_close(gradients(twin), gradients(network), rtol=1e-7, atol=1e-9)
    torch._dynamo.reset()
