"""DLA-X, base and elastic: the paper's figures, any size, and training of every weight."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import elastic_cnn

sys.path.insert(0, str(Path(__file__).parent))
from any_size import check_export, check_training
from cost import count

SIDES = st.integers(33, 130)
SMALL = {"channels": (8, 8, 32, 48, 64, 96), "cardinality": 4, "base_width": 8, "num_classes": 5}
CHANNELS = (16, 32, 128, 256, 512, 1024)


@pytest.fixture(scope="module", params=["dla60x_elastic", "dla102x_elastic"])
def small(request):
    return elastic_cnn.create_model(request.param, **SMALL)


def unused_projections(levels, size=224):
    """Parameters and multiply-adds, in millions and billions, of the layers that the paper counts and nothing uses: a
    1x1 convolution and a norm for each tree of a level above its deepest one, at the level's resolution."""
    params = macs = 0
    for level in range(2, 6):
        weights = CHANNELS[level - 1] * CHANNELS[level]
        params += (levels[level] - 1) * (weights + 2 * CHANNELS[level])
        macs += (levels[level] - 1) * weights * (size >> level) ** 2
    return params / 1e6, macs / 1e9


@pytest.mark.parametrize(
    ("name", "levels", "params", "macs"),
    [
        ("dla60x", (1, 1, 1, 2, 3, 1), 17.65, 3.594),
        ("dla60x_elastic", (1, 1, 1, 2, 3, 1), 17.65, 3.110),
        ("dla102x", (1, 1, 1, 3, 4, 1), 26.8, 5.976),
        ("dla102x_selastic", (1, 1, 1, 3, 4, 1), 26.8, 4.965),
        ("dla102x_elastic", (1, 1, 3, 3, 3, 1), 24.9, 5.946),
    ],
)
def test_cost_is_the_paper_s_but_for_the_projections_that_nothing_uses(name, levels, params, macs):
    measured, unused = count(name), unused_projections(levels)
    assert abs(measured[0] + unused[0] - params) <= 0.05
    assert abs(measured[1] + unused[1] - macs) <= 0.0006
    if name == "dla60x":
        assert (round(measured[0], 3), round(measured[1], 3)) == (17.352, 3.517)
    if name == "dla60x_elastic":
        assert (round(measured[0], 3), round(measured[1], 3)) == (17.352, 3.033)


@pytest.mark.parametrize(
    ("name", "blocks"), [("dla60x_elastic", 11), ("dla102x_selastic", 23), ("dla102x_elastic", 21)]
)
def test_blocks_of_the_first_three_levels_are_elastic(name, blocks):
    with torch.device("meta"):
        report = elastic_cnn.create_model(name).elastic_report
    assert len(report.converted) == blocks
    assert sum(reason == "changes the resolution" for reason in report.left.values()) == 3


@given(height=SIDES, width=SIDES)
@settings(max_examples=12, deadline=None)
def test_any_size(small, height, width):
    with torch.no_grad():
        logits = small.eval()(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@given(height=SIDES, width=SIDES)
@settings(max_examples=10, deadline=None)
def test_the_base_takes_any_size_too(height, width):
    base = elastic_cnn.create_model("dla60x", **SMALL).eval()
    with torch.no_grad():
        features = base.forward_features(torch.randn(1, 3, height, width))
    assert features.shape == (1, 96, -(-height // 32), -(-width // 32))


def test_any_size_also_where_timm_itself_builds_the_entry():
    with torch.no_grad():
        assert timm.create_model("dla60x_elastic", **SMALL).eval()(torch.randn(1, 3, 75, 61)).isfinite().all()


def test_the_base_computes_what_timm_s_does_at_224():
    base = timm.create_model("dla60x", **SMALL).eval()
    ours = elastic_cnn.create_model("dla60x", **SMALL).eval()
    ours.load_state_dict(base.state_dict())
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(ours(x), base(x))


def test_every_weight_trains_and_checkpointing_changes_nothing(small):
    check_training(small, torch.randn(2, 3, 65, 47))


def test_no_weight_of_the_base_is_dead():
    base = elastic_cnn.create_model("dla60x", **SMALL).eval()
    base(torch.randn(1, 3, 65, 47)).sum().backward()
    assert not [name for name, p in base.named_parameters() if p.grad is None]


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning", "ignore:.torch.jit:DeprecationWarning")
def test_export_and_torchscript():
    network = elastic_cnn.create_model("dla60x_elastic", **SMALL, levels=(1, 1, 1, 1, 1, 1)).eval()
    x = torch.randn(1, 3, 47, 65)
    check_export(network, x)
    with torch.no_grad():
        assert torch.equal(torch.jit.script(network)(x), network(x))


def test_intermediates_are_the_levels(small):
    x = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        final, maps = small.eval().forward_intermediates(x)
        assert [tuple(m.shape[1:]) for m in maps] == [
            (c, 64 >> i, -(-48 // (1 << i))) for i, c in enumerate(SMALL["channels"])
        ]
        assert torch.equal(final, small.forward_features(x))
        (early,) = small.forward_intermediates(x, [2], stop_early=True, intermediates_only=True)
        assert torch.equal(early, maps[2])
    with pytest.raises(ValueError, match="NLC"):
        small.forward_intermediates(x, output_fmt="NLC")


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="depth"):
        elastic_cnn.create_model("dla60x_elastic", depth=3)
