"""The operators seen from torch: shapes without computing, export, compilation; and inputs that do not fit."""

import native_calls as calls
import pytest
import torch
from native_blocks_reference import random_block

from elastic_cnn.kernels import ops
from elastic_cnn.kernels.native import load
from elastic_cnn.kernels.packing import Tree, pack, pack_stem, pack_tree

pytestmark = pytest.mark.skipif(not ops.ready(), reason=f"no native kernels here: {load().reason}")


def tree_example():
    """(x, bottom, children, weights, plan) of a tree that halves its input."""
    blocks = (random_block(8, 12, (4, 2), stride=2, projection=True), random_block(12, 12, (4, 2), (3, 2)))
    packed = pack_tree(Tree(blocks, (torch.randn(12, 32), torch.randn(12)), (8,)))
    bottom = torch.randn(2, 8, 5, 4)
    return torch.randn(2, 8, 9, 7), bottom, [bottom], packed.weights, packed.plan


def examples():
    packed = pack(
        [random_block(8, 12, (4, 2), (3, 2), projection=True), random_block(12, 12, (4, 2), stride=2, projection=True)]
    )
    x = torch.randn(2, 8, 9, 7)
    return {
        "residual_blocks": (x, packed.weights, packed.plan),
        "dla_tree": tree_example(),
        "stem": (x, pack_stem(torch.randn(6, 8, 3, 3)), torch.randn(6), 3, 2),
    }


@pytest.mark.parametrize("name", examples())
@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_finds_the_operator_sound(name, channels_last):
    """torch's own checks: the schema tells the truth, and the shape without computing is the computed one."""
    arguments = list(examples()[name])
    if channels_last:
        arguments[0] = arguments[0].contiguous(memory_format=torch.channels_last)
    operator = getattr(torch.ops.elastic_cnn, name).default
    checks = ("test_schema", "test_faketensor")
    assert set(torch.library.opcheck(operator, tuple(arguments), test_utils=checks).values()) == {"SUCCESS"}


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.packed = pack([random_block(6, 6, (4, 2), (4, 2)), random_block(6, 10, (4, 2), stride=2, projection=True)])
        self.register_buffer("weights", self.packed.weights)
        self.register_buffer("stem", pack_stem(torch.randn(6, 3, 3, 3)))
        self.register_buffer("bias", torch.randn(6))

    def forward(self, x):
        x = torch.ops.elastic_cnn.stem(x, self.stem, self.bias, 3, 2)
        return torch.ops.elastic_cnn.residual_blocks(x, self.weights, self.packed.plan)


def test_export_for_any_size_and_batch():
    layers = Layers()
    size = torch.export.Dim.AUTO
    program = torch.export.export(layers, (torch.randn(2, 3, 65, 70),), dynamic_shapes=({0: size, 2: size, 3: size},))
    module = program.module()
    for shape in ((1, 3, 65, 70), (3, 3, 40, 33)):
        x = torch.randn(shape)
        torch.testing.assert_close(module(x), layers(x), rtol=0, atol=0)


def test_compile_sees_through_the_operators():
    layers = Layers()
    compiled = torch.compile(layers, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 3, 33, 31)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), layers(x), rtol=0, atol=0)


def arguments(**changes):
    packed = pack([random_block(8, 8, (4, 2))])
    return {"x": torch.randn(1, 8, 6, 6), "weights": packed.weights, "plan": packed.plan, **changes}


GOOD = [8, 8, 1, 4, 2, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.randn(1, 8, 6, 6).half()}, "of dtype Float"),
        ({"x": torch.randn(8, 6, 6)}, "map"),
        ({"x": torch.randn(1, 9, 6, 6)}, "8 channels"),
        ({"x": torch.empty(1, 8, 0, 6)}, "rows"),
        ({"weights": torch.randn(10)}, "packed weights"),
        ({"weights": torch.randn(10).double()}, "of dtype Float"),
        ({"weights": torch.randn(5, 2)}, "a vector"),
        ({"plan": []}, "12 numbers"),
        ({"plan": [1, 2, 3]}, "12 numbers"),
        ({"plan": [8, 16, *GOOD[2:]]}, "projection"),
        ({"plan": [8, 8, 3, *GOOD[3:]]}, "stride"),
        ({"plan": [8, 8, 1, 0, *GOOD[4:]]}, "groups"),
        ({"plan": [8, 8, 1, 1 << 40, *GOOD[4:]]}, "groups"),
        ({"plan": [8, 8, 1, 60000, 60000, *GOOD[5:]]}, "inner channels"),
        ({"plan": [*GOOD, 9, 9, *GOOD[2:]]}, "follows"),
        ({"plan": [*GOOD[:10], -1, 0]}, "hidden"),
        ({"plan": [8, 8, 1, 5, 2, *GOOD[5:]]}, "packed weights"),
    ],
)
def test_blocks_refuse_what_does_not_fit(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        calls.residual_blocks(**arguments(**changes))


MAP = torch.randn(1, 8, 6, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calls.stem(MAP, torch.randn(5), torch.randn(6), 3, 2), "packed weights"),
        (lambda: calls.stem(MAP, torch.randn(5), torch.randn(6), 4, 2), "odd"),
        (lambda: calls.stem(MAP, torch.randn(5), torch.randn(6), 3, 0), "stride"),
        (lambda: calls.stem(MAP, torch.randn(5), torch.randn(6, 2), 3, 2), "a vector"),
    ],
)
def test_single_passes_refuse_what_does_not_fit(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, bottom, children, weights, plan: (x[:, :5], bottom, children, weights, plan), "takes 8 channels"),
        (lambda x, bottom, children, weights, plan: (x, bottom[..., :3], children, weights, plan), "bottom must have"),
        (lambda x, bottom, children, weights, plan: (x, bottom, [], weights, plan), "takes 1 children, got 0"),
        (lambda x, bottom, children, weights, plan: (x, bottom, [bottom[:1]], weights, plan), "a child must have"),
        (lambda x, bottom, children, weights, plan: (x, bottom, children, weights[1:], plan), "packed weights"),
        (lambda x, bottom, children, weights, plan: (x, bottom, children, weights, plan[:20]), "more than 24 numbers"),
        (
            lambda x, bottom, children, weights, plan: (x, bottom, [bottom], weights, [*plan[:-1], 0]),
            "child must lie in 1..65536, got 0",
        ),
    ],
)
def test_trees_that_do_not_fit_say_so(change, message):
    with pytest.raises(ValueError, match=message):
        calls.dla_tree(*change(*tree_example()))
