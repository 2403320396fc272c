"""Where the explorer's map puts each photo: t-SNE or UMAP of the policies or features, or two principal components."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from elastic_cnn.policy.embedding import MINIMUM, embed, embed_by_umap

METHODS = ("auto", "tsne", "umap", "pca")
MOST_FOR_TSNE = 20_000  # rows up to which `auto` takes t-SNE


@dataclass(frozen=True)
class Layout:
    """Coordinates (N, 2) float32 within 0..1, keeping proportions; `method` and `note` say how they were made."""

    coordinates: np.ndarray
    method: str
    note: str


def lay_out(
    vectors: np.ndarray,
    method: str = "auto",
    say: Callable[[str], None] = lambda line: None,
    what: str = "policies",
) -> Layout:
    """The map of vectors (N, D), scores or features; `what` names them. `auto`: t-SNE up to `MOST_FOR_TSNE` photos,
    principal components beyond; `umap` where umap-learn is installed.

    `ValueError` for an unknown method, `umap` without its package, and `tsne` or `umap` with fewer than five photos.
    """
    if method not in METHODS:
        raise ValueError(f"unknown map {method!r}; choose from {', '.join(METHODS)}")
    by_tsne = method == "tsne" or (method == "auto" and MINIMUM <= len(vectors) <= MOST_FOR_TSNE)
    if by_tsne or method == "umap":
        name = f"{'t-SNE' if by_tsne else 'UMAP'} of {what}"
        say(f"laying out {len(vectors)} photos by {name}")
        note = f"Near points have like {what}; the axes mean nothing."
        return Layout(_to_unit((embed if by_tsne else embed_by_umap)(vectors)), name, note)
    coordinates, explained = _principal(vectors)
    note = f"The two principal components of the {what} hold {100 * explained:.0f}% of their variance."
    return Layout(_to_unit(coordinates), "Principal components", note)


def _principal(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """(N, 2) coordinates, and the part of the variance that they hold. Scores as they are, as for t-SNE."""
    centred = scores.astype(np.float64) - scores.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred  # (blocks, blocks)
    values, vectors = np.linalg.eigh(covariance)  # ascending
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1, 1)  # a sign of its own, the same on every machine
    if axes.shape[1] == 1:
        axes = np.concatenate([axes, np.zeros_like(axes)], axis=1)
    total = values.sum()
    return centred @ axes, float(values[::-1][:2].sum() / total) if total > 0 else 1.0


def _to_unit(coordinates: np.ndarray) -> np.ndarray:
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    extent = float((high - low).max())
    if extent == 0:
        return np.full(coordinates.shape, 0.5, np.float32)
    return ((coordinates - (low + high) / 2) / extent + 0.5).astype(np.float32)
