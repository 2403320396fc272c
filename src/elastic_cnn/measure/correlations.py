"""How what a network says goes with a number of the image, such as the size of its object."""

import math

import numpy as np

from elastic_cnn.extras import require

Z95 = 1.959964


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rank correlation and its 95% interval (Fisher's, with Bonett and Wright's variance).

    0 with the widest interval where one of them does not vary or there are too few.
    """
    if len(x) < 5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0, -1.0, 1.0
    rho = float(require("scipy.stats", "figures").spearmanr(x, y).statistic)
    if abs(rho) > 1 - 1e-12:
        return rho, rho, rho
    half = Z95 * math.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    centre = math.atanh(rho)
    return rho, math.tanh(centre - half), math.tanh(centre + half)


def standardised(values: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
    """Columns of (N, D) less the mean, over the deviation where there is one, of those of `of` (M, D), by default
    their own."""
    of = values if of is None else of
    deviation = of.std(axis=0)
    return (values - of.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def rank_correlations(size: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each column of scores (N, blocks) with size (N,); 0 where one of them is constant."""
    ranks = require("scipy.stats", "figures").rankdata
    x, y = ranks(size), ranks(scores, axis=0)
    x, y = x - x.mean(), y - y.mean(axis=0)
    norms = np.sqrt((x**2).sum() * (y**2).sum(axis=0))
    return np.divide(x @ y, norms, out=np.zeros(y.shape[1]), where=norms > 0)


def size_readability(size: np.ndarray, scores: np.ndarray, parts: int = 5) -> float:
    """How much of the variance of log size a linear map of scores (N, blocks) tells, on parts held out in turn (R^2).

    Below 0 where it tells less than the mean size does.
    """
    target = np.log(size)
    columns = np.concatenate([standardised(scores), np.ones((len(scores), 1))], axis=1)
    missed = total = 0.0
    for part in range(parts):
        held = np.arange(len(target)) % parts == part
        solution = np.linalg.lstsq(columns[~held], target[~held], rcond=None)[0]
        missed += float(((target[held] - columns[held] @ solution) ** 2).sum())
        total += float(((target[held] - target[~held].mean()) ** 2).sum())
    return 1 - missed / total
