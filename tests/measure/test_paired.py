"""Paired differences, intervals and correlations against scipy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from elastic_cnn.measure.correlations import rank_correlations, size_readability
from elastic_cnn.measure.paired import MeanSpread, PairedDifference, paired_difference

VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9)


@pytest.mark.parametrize("count", [3, 5, 12])
def test_the_bootstrap_is_scipys(count):
    rng = np.random.default_rng(count)
    first, second = rng.normal(1, 1, count), rng.normal(0, 1, count)
    found = paired_difference(first, second)
    theirs = stats.bootstrap((first - second,), np.mean, method="percentile", n_resamples=40_000, random_state=rng)
    spread = np.std(first - second) / count**0.5
    # both are quantiles of the same distribution; theirs (and ours above 6 pairs) are drawn: about 2% of its deviation
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * spread)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * spread)
    student = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.t_low, found.t_high) == pytest.approx((student.low, student.high))


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_intervals_hold_the_mean_and_turn_with_the_sides(pairs):
    first, second = np.array(pairs).T
    found, turned = paired_difference(first, second), paired_difference(second, first)
    assert found.low - 1e-12 <= found.mean <= found.high + 1e-12
    assert found.mean == pytest.approx(-turned.mean, abs=1e-12)
    assert found.decided == -turned.decided
    assert found.positive == int((first > second).sum())


def test_a_bootstrap_alone_decides_nothing():
    found = paired_difference([0.3, 0.4, 0.9], [0.2, 0.2, 0.2])  # all positive: the bootstrap leaves out 0, t does not
    assert found.low > 0 > found.t_low
    assert found.decided == 0
    assert paired_difference([1.0, 1.1, 1.2], [0, 0, 0]).decided == 1
    assert PairedDifference(-1, -2, -0.5, -2.5, -0.1, 3, 0).decided == -1
    assert PairedDifference(-1, -2, -0.5, -2.5, -0.1, 3, 0, 1).turned == PairedDifference(1, 0.5, 2, 0.1, 2.5, 3, 2, 1)
    assert paired_difference([1, 2, 3, 4], [0, 2, 4, 2]).turned == paired_difference([0, 2, 4, 2], [1, 2, 3, 4])
    assert paired_difference([1.0], [0.5]).turned == paired_difference([0.5], [1.0])


def test_one_pair_has_no_interval_and_none_is_an_error():
    assert paired_difference([1.0], [0.5]).low is None
    assert MeanSpread.of([2.0]) == MeanSpread(2.0, None, 1)
    with pytest.raises(ValueError, match="as many values"):
        paired_difference([1.0], [])
    with pytest.raises(ValueError, match="nothing"):
        MeanSpread.of([])


def test_spread_is_the_sample_deviation():
    assert MeanSpread.of([1.0, 2.0, 4.0]).deviation == pytest.approx(np.std([1, 2, 4], ddof=1))


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    size, scores = rng.uniform(8, 40, 50), rng.normal(size=(50, 3)).round(1)  # rounded: ties
    scores[:, 1] += size / 10
    scores[:, 2] = 7
    expected = [stats.spearmanr(size, scores[:, column]).statistic for column in range(2)]
    np.testing.assert_allclose(rank_correlations(size, scores), [*expected, 0], atol=1e-12)


def test_size_readability_is_that_of_held_out_regressions():
    rng = np.random.default_rng(1)
    size = rng.uniform(8, 40, 60)
    scores = np.stack([np.log(size) + rng.normal(0, 0.3, 60), rng.normal(size=60)], axis=1)
    predicted, centre = np.empty(60), np.empty(60)
    for part in range(5):
        held = np.arange(60) % 5 == part
        predicted[held] = LinearRegression().fit(scores[~held], np.log(size[~held])).predict(scores[held])
        centre[held] = np.log(size[~held]).mean()
    expected = 1 - ((np.log(size) - predicted) ** 2).sum() / ((np.log(size) - centre) ** 2).sum()
    assert size_readability(size, scores) == pytest.approx(expected)
    assert size_readability(size, rng.normal(size=(60, 2))) < 0.2
