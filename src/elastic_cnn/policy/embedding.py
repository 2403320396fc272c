"""Where images lie in policy space: t-SNE of their score vectors (paper, Figure 6)."""

import numpy as np

from elastic_cnn.extras import require

MINIMUM = 5
ITERATIONS = 750  # 250 of early exaggeration, then 500


def embed(scores: np.ndarray, *, perplexity: float = 30.0, seed: int = 0, standardise: bool = False) -> np.ndarray:
    """t-SNE coordinates (N, 2) float32 of score vectors (N, blocks), the same for the same input.

    perplexity: lowered to (N - 1) / 3 for few images. standardise: give every block mean 0 and deviation 1 first; the
    paper embeds the scores as they are. It runs on one thread, for the sake of being repeatable.

    Raises `ValueError` for fewer than five images, or scores that are not finite.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or len(scores) < MINIMUM:
        raise ValueError(f"t-SNE needs scores of at least {MINIMUM} images, (N, blocks), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("t-SNE needs finite scores")
    if standardise:
        deviation = scores.std(axis=0)
        scores = (scores - scores.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
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
