"""The native kernels for bfloat16 against torch's layers in float64; the matrix unit's code, emulated, against them.

Tolerance: a map is rounded to bfloat16 (relative steps of 2^-9) after each convolution, and so are the weights; of a
block of three convolutions, in the norm over a map, 0.01 is three times what is seen and a tenth of what a wrong tap,
channel or weight makes."""

import ctypes
import subprocess
from pathlib import Path

import native_calls as calls
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_blocks_reference import blocks, random, random_block, run_block, run_tree
from native_dense_reference import random_trunk, run_steps

from elastic_cnn.kernels import build, ops
from elastic_cnn.kernels.native import load
from elastic_cnn.kernels.packing import Tree, grouped_panels, pack, pack_stem, pack_tree
from elastic_cnn.kernels.packing_dense import pack_dense

BF16 = torch.bfloat16
pytestmark = pytest.mark.skipif(not ops.ready(BF16), reason=f"no native kernels for bfloat16: {load('bf16').reason}")
sizes = st.integers(1, 34)
quick = settings(max_examples=30, deadline=None)


def assert_near(got: torch.Tensor, wanted: torch.Tensor, most: float = 0.01) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == BF16
    assert float((got.double() - wanted).norm()) <= most * float(wanted.norm()) + 1e-2


@quick
@given(blocks(), sizes, sizes, st.sampled_from((1, 2, 11)))
def test_residual_blocks(block, height, width, batch):
    x = torch.randn(batch, block.high.w1.shape[1], height, width).to(BF16)
    packed = pack([block], BF16)
    assert_near(calls.residual_blocks(x, packed.weights, packed.plan), run_block(block, x.double()))


@settings(max_examples=15, deadline=None)
@given(st.data(), sizes, sizes)
def test_trees(data, height, width):
    first = data.draw(blocks())
    out, stride = len(first.bias), first.stride
    children = tuple(data.draw(st.lists(st.sampled_from((1, 8, 32, 40)), max_size=3)))
    wide = 2 * out + sum(children)
    tree = Tree((first, random_block(out, out, (4, 3))), (random(out, wide, over=wide), random(out)), children, True)
    x = torch.randn(2, first.high.w1.shape[1], height, width).to(BF16)
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    bottom = torch.randn(2, x.shape[1], *size).to(BF16)
    given_children = [torch.randn(2, channels, *size).to(BF16) for channels in children]
    packed = pack_tree(tree, BF16)
    got = calls.dla_tree(x, bottom, given_children, packed.weights, packed.plan)
    wanted = run_tree(tree, x.double(), bottom.double(), [child.double() for child in given_children])
    assert_near(got, wanted, 0.015)  # two blocks and a root


@quick
@given(
    st.lists(st.tuples(st.sampled_from((2, 12, 32)), st.integers(1, 70), st.sampled_from((0, 1, 8, 33))), min_size=1),
    sizes,
    sizes,
    st.sampled_from((2, 20, 64)),
)
def test_dense_blocks(layers, height, width, channels):
    steps = random_trunk(channels, layers[:4], normed=True)
    x = torch.randn(2, channels, height, width).to(BF16)
    packed = pack_dense(steps, BF16)
    assert_near(
        calls.dense_blocks(x, packed.weights, packed.plan), run_steps(steps, x.double()), 0.02
    )  # of four layers


def test_dense_blocks_of_odd_channels_are_refused():
    packed = pack_dense(random_trunk(3, [(2, 4, 0)]), BF16)
    with pytest.raises(ValueError, match="even numbers of channels, got 3"):
        calls.dense_blocks(torch.zeros(1, 3, 4, 4, dtype=BF16), packed.weights, packed.plan)


@quick
@given(st.integers(1, 5), st.integers(1, 70), st.sampled_from((1, 3, 7)), st.integers(1, 3), sizes, sizes)
def test_stem(channels, out, kernel, stride, height, width):
    x = torch.randn(2, channels, height, width).to(BF16)
    weight, bias = random(out, channels, kernel, kernel, over=channels * kernel**2), torch.randn(out)
    y = F.conv2d(x.double(), weight, bias.double(), stride, kernel // 2)
    got = calls.stem(x, pack_stem(weight, BF16), bias, kernel, stride)
    assert_near(got, F.max_pool2d(F.relu(y), 3, 2, 1))


def test_dtypes_are_checked():
    packed = pack([random_block(8, 8, (4, 2))], BF16)
    x = torch.zeros(1, 8, 4, 4)
    with pytest.raises(TypeError, match="x must be of dtype BFloat16, got Float"):
        calls.residual_blocks(x, packed.weights, packed.plan)
    with pytest.raises(TypeError, match="packed weights must be of dtype Int, got Float"):
        torch.ops.elastic_cnn.residual_blocks_bf16(x.to(BF16), packed.weights.view(torch.float32), packed.plan)


def test_what_is_not_a_number_stays_visible():
    packed = pack([random_block(8, 8, (4, 2))], BF16)
    x = torch.full((1, 8, 4, 4), float("nan"), dtype=BF16)
    assert calls.residual_blocks(x, packed.weights, packed.plan).isnan().all()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The convolution with the matrix unit emulated and with vectors, compiled by themselves."""
    folder = tmp_path_factory.mktemp("amx")
    convolution = build.SOURCES / "inference" / "convolution_simd.cpp"
    common = [build.compiler(), "-O1", "-std=c++20", "-fPIC", "-DELASTIC_BF16", f"-I{build.SOURCES}"]
    vectors = [*common, *build.LEVELS["avx512_bf16"], "-c", str(convolution)]
    jobs = [
        [*vectors, "-DELASTIC_LEVEL=avx512_bf16", "-o", str(folder / "vectors.o")],
        [*vectors, "-DELASTIC_EMULATE_AMX", "-DELASTIC_LEVEL=amx_bf16", "-o", str(folder / "matrix.o")],
    ]
    for job in jobs:
        subprocess.run(job, check=True)
    objects = [str(folder / "vectors.o"), str(folder / "matrix.o")]
    source = Path(__file__).with_name("amx_convolution.cpp")
    subprocess.run([*common, "-shared", str(source), *objects, "-o", str(folder / "both.so")], check=True)
    return ctypes.CDLL(str(folder / "both.so"))


@pytest.mark.parametrize(
    ("taps", "channels", "groups", "outputs", "height", "width", "low"),
    [
        (1, 64, 1, 64, 7, 9, False),  # one run over the rows' ends, not a whole number of blocks
        (1, 96, 1, 40, 1, 33, False),
        (1, 32, 1, 32, 5, 70, True),  # rows longer than two blocks, the enlarged map added
        (1, 64, 1, 32, 13, 7, True),  # runs that begin at odd columns of the enlarged map
        (9, 32, 1, 64, 9, 30, True),
        (9, 64, 1, 33, 3, 5, False),
        (9, 64, 1, 32, 7, 7, True),  # rows and their border as one line
        (9, 128, 32, 128, 14, 14, False),  # narrow groups
        (9, 96, 8, 96, 5, 20, False),  # panels of which the unit takes 36 and 60 inputs
        (1, 40, 1, 32, 4, 8, False),  # 20 words: two steps of ten
        (1, 22, 1, 32, 4, 8, True),  # one step of eleven
        (1, 34, 1, 32, 4, 8, False),  # 17 words: not for the matrix unit
    ],
)
def test_the_matrix_unit_computes_what_vectors_do(emulated, taps, channels, groups, outputs, height, width, low):
    torch.manual_seed(0)
    gap, wide, border = 32, -(-outputs // 32) * 32, 2 if taps == 9 else 0
    pixel, out_pixel = -(-channels // 32) * 32 + gap, wide + gap
    maps = torch.zeros(height + border, width + border, pixel, dtype=BF16)
    maps[:, :, :channels] = torch.randn(height + border, width + border, channels).to(BF16)
    maps[:, :, channels:] = torch.nan  # what no product may read
    weight = random(outputs, channels // groups, taps, over=taps * channels // groups)
    packed, bias = grouped_panels(weight, groups, BF16), torch.randn(wide)
    lows = torch.randn((height + 1) // 2, (width + 1) // 2, out_pixel).to(BF16) if low else None
    shortcut = torch.randn(height, width, out_pixel).to(BF16)
    got = [torch.zeros(height, width, out_pixel, dtype=BF16) for _ in range(2)]
    for unit, output in enumerate(got):
        pointers = [
            ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (maps, packed, bias, lows, shortcut, output)
        ]
        sizes_of_it = [ctypes.c_long(out_pixel), outputs, height, width]
        emulated.run(
            unit, pointers[0], ctypes.c_long(pixel), taps, channels, groups, *pointers[1:5], pointers[5], *sizes_of_it
        )
    assert torch.isfinite(got[0].float()).all()
    assert float(got[0].float().abs().mean()) > 0.1
    torch.testing.assert_close(got[1].float(), got[0].float(), rtol=2**-7, atol=1e-2)  # sums in another order
