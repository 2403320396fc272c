"""Intervals and tests against scipy's, and properties that hold for all data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from elastic_cnn.demo.results import divide_by_size
from elastic_cnn.measure.correlations import spearman
from elastic_cnn.measure.proportions import Difference, Proportion


@given(total=st.integers(1, 400), data=st.data())
def test_wilson_interval_is_scipys(total, data):
    count = data.draw(st.integers(0, total))
    found = Proportion.of(np.arange(total) < count)
    expected = binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert (found.count, found.total) == (count, total)
    assert found.value == count / total
    assert found.low == pytest.approx(expected.low, abs=1e-6)
    assert found.high == pytest.approx(expected.high, abs=1e-6)


def test_no_proportion_of_nothing():
    with pytest.raises(ValueError, match="nothing"):
        Proportion.of(np.array([], bool))


def test_difference_counts_pairs():
    base = np.array([1, 1, 0, 0, 0, 0, 0, 1, 1, 1], bool)
    elastic = np.array([1, 0, 1, 1, 1, 1, 0, 1, 1, 1], bool)
    found = Difference.of(base, elastic)
    assert (found.only_elastic, found.only_base) == (4, 1)
    assert found.value == pytest.approx(0.3)
    # variance of a paired difference of proportions, from the differences themselves
    apart = elastic.astype(float) - base.astype(float)
    assert found.high - found.value == pytest.approx(1.959964 * apart.std() / np.sqrt(10))
    assert found.p_value == pytest.approx(2 * (1 + 5) / 32)  # at most one of five, both ways
    assert not found.clear


def test_equal_networks_do_not_differ():
    right = np.array([1, 0, 1], bool)
    found = Difference.of(right, right)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_clear_difference():
    assert Difference.of(np.arange(100) < 50, np.arange(100) < 80).clear


def test_spearman_of_monotone_and_constant():
    x = np.linspace(1, 5, 40)
    assert spearman(x, np.exp(x))[0] == pytest.approx(1)
    assert spearman(x, np.ones(40)) == (0.0, -1.0, 1.0)
    assert spearman(x[:3], x[:3]) == (0.0, -1.0, 1.0)


def test_spearman_interval_covers_the_truth():
    """Of 200 samples of independent pairs, about 95% of the intervals hold 0: 190 +- 3 deviations of 3.1."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        _, low, high = spearman(*rng.normal(0, 1, (2, 50)))
        held += low <= 0 <= high
    assert 180 <= held <= 199


@given(st.lists(st.floats(8, 48), min_size=1, max_size=80))
def test_size_ranges_divide_the_images(sizes):
    values = np.array(sizes)
    wrong = values < 20
    bins = divide_by_size(values, [wrong, ~wrong], [~wrong, wrong])
    members = np.concatenate([part.members for part in bins])
    assert sorted(members) == list(range(len(values)))
    for part in bins:
        assert ((values[part.members] >= part.low - 1e-9) & (values[part.members] <= part.high + 1e-9)).all()
        assert part.base == pytest.approx([wrong[part.members].mean(), (~wrong)[part.members].mean()])
        assert part.elastic == pytest.approx(part.base[::-1])
