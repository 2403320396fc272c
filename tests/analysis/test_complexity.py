"""Counts against the paper's figures and against sums by hand."""

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from elastic_cnn import create_model
from elastic_cnn.analysis.complexity import count, table_1
from elastic_cnn.analysis.paper import PAPER_ROWS


def test_a_convolution_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=True), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 5)
    )
    cost = count(network, (3, 4, 4))
    assert cost.parameters == 3 * 8 * 9 + 8 + 8 * 4 * 5 + 5
    assert cost.macs == 2 * 2 * 8 * 3 * 9 + 8 * 4 * 5
    assert cost.uncounted == {"relu": 1}


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("options", [{"scale_factor": 2}, {"scale_factor": 1.3}, {"size": (7, 9)}])
def test_resized_maps_have_their_size(mode, options):
    class Resized(nn.Module):
        def forward(self, x):  # (1, 3, 5, 6)
            x = F.interpolate(x.contiguous(memory_format=torch.channels_last), mode=mode, **options)
            return (
                x.permute(0, 2, 3, 1).view(-1).view(-1, 3).double()
            )  # a view where the layout is kept, as resizing does

    height, width = F.interpolate(torch.zeros(1, 3, 5, 6), mode=mode, **options).shape[-2:]
    network = nn.Sequential(Resized(), nn.Linear(3, 4, bias=False).double()).to("meta")
    cost = count(network, (3, 5, 6))
    assert cost.macs == height * width * 3 * 4
    assert cost.uncounted[f"upsample_{mode}2d"] == 1


@pytest.mark.parametrize("row", PAPER_ROWS, ids=lambda row: row.network)
def test_paper_figures(row):
    cost = count(create_model(row.network, device="meta"))
    if row.family == "DLA":  # the released code's dead projections are not in ours: 0.298M and 0.077G in DLA-X60
        assert cost.parameters / 1e6 <= row.parameters + 0.05
        assert row.released_macs is not None
        assert 0.97 * row.released_macs <= cost.macs / 1e9 <= row.released_macs
    else:
        assert cost.parameters / 1e6 == pytest.approx(row.parameters, abs=0.051)
    if row.family not in ("DLA", "DenseNet"):
        assert cost.macs / 1e9 == pytest.approx(row.macs, abs=0.051)
    if row.released_macs is not None and row.family != "DLA":
        assert cost.macs / 1e9 == pytest.approx(row.released_macs, abs=0.003)


def test_dla_without_dead_projections():
    for name, macs in (("dla60x", 3.517), ("dla60x_elastic", 3.033)):
        cost = count(create_model(name, device="meta"))
        assert cost.parameters / 1e6 == pytest.approx(17.352, abs=0.001)
        assert cost.macs / 1e9 == pytest.approx(macs, abs=0.002)


def test_small_pair_matches():
    base, elastic = (count(timm.create_model(name), (3, 64, 64)) for name in ("resnext_small", "resnext_small_elastic"))
    assert elastic.parameters == pytest.approx(base.parameters, rel=0.02)
    assert elastic.macs == pytest.approx(base.macs, rel=0.02)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 7), st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_table_1(n, c, k, r):
    costs = {cost.name: cost for cost in table_1(n, c, k, len(r), r)}
    single, elastic = costs["single scale"], costs["Elastic"]
    assert single.macs == n * n * c * c * k * k
    assert elastic.parameters == single.parameters
    assert elastic.macs == pytest.approx(sum((n / s) ** 2 for s in r) / len(r) * c * c * k * k)
    assert elastic.macs <= single.macs <= costs["filter pyramid (standard)"].macs
    assert costs["feature pyramid (concatenation)"].parameters == len(r) * single.parameters


def test_table_1_refuses_nonsense():
    with pytest.raises(ValueError, match="2 scales"):
        table_1(56, 64, 3, 2, [1])
    with pytest.raises(ValueError, match="c=0"):
        table_1(56, 0, 3, 1, [1])
