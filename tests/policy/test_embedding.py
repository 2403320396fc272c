"""t-SNE of policies: repeatable, true to neighbourhoods, and defined for few or equal images."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn.policy.embedding import embed, embed_by_umap


def clusters(count, seed=0):
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    return kinds, rng.normal(0, 0.1, (count, 6)) + 5 * np.eye(6)[kinds]


@pytest.mark.parametrize("method", [embed, embed_by_umap])
def test_neighbours_stay_neighbours(method):
    if method is embed_by_umap:
        pytest.importorskip("umap", reason="maps by UMAP need the package umap-learn")
    kinds, scores = clusters(90)
    places = method(scores)
    assert places.dtype == np.float32
    np.testing.assert_array_equal(places, method(scores))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (kinds[distance.argmin(axis=1)] == kinds).all()


def test_the_same_scores_give_the_same_places_and_the_seed_counts():
    _, scores = clusters(60)
    first = embed(scores, seed=3)
    assert first.shape == (60, 2)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, embed(scores, seed=3))
    assert not np.array_equal(embed(scores[:, :1], seed=3), embed(scores[:, :1], seed=4))


@settings(max_examples=8, deadline=None)
@given(count=st.integers(5, 40), blocks=st.integers(1, 4), standardise=st.booleans())
def test_any_number_of_images_and_blocks(count, blocks, standardise):
    scores = np.random.default_rng(count).normal(size=(count, blocks))
    assert np.isfinite(embed(scores, standardise=standardise)).all()


def test_standardising_makes_blocks_count_alike():
    """A block of 1000 times the spread hides the clusters unless blocks are standardised."""
    kinds, scores = clusters(90)
    scores = np.concatenate([scores, np.random.default_rng(1).normal(0, 1e3, (90, 1))], axis=1)

    def kept(places):
        distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(distance, np.inf)
        return (kinds[distance.argmin(axis=1)] == kinds).mean()

    assert kept(embed(scores, standardise=True)) == 1
    assert kept(embed(scores)) < 0.7


def test_equal_images_lie_in_one_place():
    np.testing.assert_array_equal(embed(np.ones((8, 3))), np.zeros((8, 2)))


@pytest.mark.parametrize("scores", [np.zeros((4, 3)), np.zeros(9), np.full((9, 2), np.nan)])
def test_too_few_or_broken_scores_are_refused(scores):
    with pytest.raises(ValueError, match="t-SNE needs"):
        embed(scores)


@pytest.mark.parametrize(
    "scores",
    [np.zeros((20, 3)), np.ones((5, 1)), clusters(6)[1], np.eye(8)[:, :1].repeat(2, 1)],
    ids=["equal", "fewest", "few", "one axis"],
)
def test_umap_places_what_hardly_differs(scores):
    pytest.importorskip("umap", reason="maps by UMAP need the package umap-learn")
    places = embed_by_umap(scores)
    assert places.shape == (len(scores), 2)
    assert np.isfinite(places).all()


def test_umap_is_not_asked_for_axes_of_equal_scores(monkeypatch):
    """Its start by principal components is not a number there."""
    asked = []

    class Umap:
        def __init__(self, **options):
            asked.append(options["init"])

        def fit_transform(self, vectors):
            return vectors[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    for scores in (np.zeros((20, 3)), clusters(20)[1]):
        embed_by_umap(scores)
    assert asked == ["random", "pca"]


def test_umap_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(
        ValueError, match=r"needs the package umap-learn: pip install umap-learn, or choose tsne or pca"
    ):
        embed_by_umap(clusters(20)[1])
