"""Where images lie in policy space: t-SNE of their score vectors (paper, Figure 6), or UMAP."""

import warnings

import numpy as np

from elastic_cnn.extras import require
from elastic_cnn.measure.correlations import standardised

MINIMUM = 5
ITERATIONS = 750  # 250 of early exaggeration, then 500


def embed(scores: np.ndarray, *, perplexity: float = 30.0, seed: int = 0, standardise: bool = False) -> np.ndarray:
    """t-SNE coordinates (N, 2) float32 of score vectors (N, blocks), the same for the same input.

    perplexity: lowered to (N - 1) / 3 for few images. standardise: give every block mean 0 and deviation 1 first; the
    paper embeds the scores as they are. It runs on one thread, for the sake of being repeatable.

    Raises `ValueError` for fewer than five images, or scores that are not finite.
    """
    scores = _checked(scores, "t-SNE")
    if standardise:
        scores = standardised(scores)
    if len(np.unique(scores, axis=0)) == 1:  # no direction to lay them out in
        return np.zeros((len(scores), 2), np.float32)
    tsne = require("sklearn.manifold", "figures").TSNE(
        perplexity=min(perplexity, (len(scores) - 1) / 3),
        init="pca" if scores.shape[1] > 1 else "random",
        max_iter=ITERATIONS,
        random_state=seed,
        n_jobs=1,
    )
    with require("threadpoolctl", "figures").threadpool_limits(1):  # the order of sums depends on the threads
        return np.asarray(tsne.fit_transform(scores), np.float32)


def embed_by_umap(vectors: np.ndarray, *, neighbours: int = 15, seed: int = 0) -> np.ndarray:
    """UMAP coordinates (N, 2) float32 of vectors (N, D), by the package umap-learn, which no extra brings.

    neighbours: of each point, lowered to N - 1. Seeded, on one thread. `ValueError` as of `embed`, and without
    umap-learn.
    """
    vectors = _checked(vectors, "UMAP")
    try:
        from umap import UMAP
    except ImportError as error:
        raise ValueError(
            "a map by UMAP needs the package umap-learn: pip install umap-learn, or choose tsne or pca"
        ) from error
    start = "pca" if vectors.shape[1] > 1 and np.ptp(vectors, axis=0).any() else "random"  # equal rows have no axes
    layout = UMAP(n_neighbors=min(neighbours, len(vectors) - 1), random_state=seed, n_jobs=1, init=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of few points; what cannot be laid out raises
        return np.asarray(layout.fit_transform(vectors.astype(np.float32)), np.float32)


def _checked(vectors: np.ndarray, method: str) -> np.ndarray:
    """(N, D) in float64. `ValueError` for fewer than five rows, and for values that are not finite."""
    vectors = np.asarray(vectors, np.float64)
    if vectors.ndim != 2 or len(vectors) < MINIMUM:
        raise ValueError(f"{method} needs scores of at least {MINIMUM} images, (N, blocks), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{method} needs finite scores")
    return vectors
