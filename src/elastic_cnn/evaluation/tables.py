"""Numbers of a test, from answers alone: by class, by size, confusions, calibration, against another network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from elastic_cnn.evaluation.collect import Answers
from elastic_cnn.extras import require
from elastic_cnn.measure.proportions import Difference, Proportion
from elastic_cnn.metrics.multilabel import best_threshold

BINS = 15  # of confidence, all of the same width
FEWEST = 20  # photos a size's part


def by_class(answers: Answers) -> list[dict[str, Any]]:
    """A row a class, in order: `photos` of it, `error` with its 95% interval, `precision`, and what it is most often
    taken for. With several labels a photo: `photos`, `precision`, `recall`, `f1` at 0.5, and average precision."""
    return _by_label(answers) if answers.several else _by_one_class(answers)


def _by_one_class(answers: Answers) -> list[dict[str, Any]]:
    counts = confusion(answers)
    rows = []
    for number, name in enumerate(answers.classes):
        own, answered = counts[number], int(counts[:, number].sum())
        row: dict[str, Any] = {"class": name, "photos": int(own.sum())}
        row |= {"error": None, "low": None, "high": None, "taken_for": None, "taken": None}
        if own.sum():
            wrong = np.repeat([True, False], [int(own.sum() - own[number]), int(own[number])])
            error = Proportion.of(wrong)
            row |= {"error": error.value, "low": error.low, "high": error.high}
            others = own.copy()
            others[number] = 0
            if others.any():
                row |= {"taken_for": answers.classes[int(others.argmax())], "taken": int(others.max())}
        row["precision"] = own[number] / answered if answered else None
        rows.append(row)
    return rows


def _by_label(answers: Answers) -> list[dict[str, Any]]:
    average = require("sklearn.metrics", "figures").average_precision_score
    rows = []
    for number, name in enumerate(answers.classes):
        truth, chance = answers.truth[:, number] > 0, answers.probabilities[:, number]
        hits, answered, there = int((truth & (chance > 0.5)).sum()), int((chance > 0.5).sum()), int(truth.sum())
        rows.append(
            {
                "class": name,
                "photos": there,
                "precision": hits / answered if answered else None,
                "recall": hits / there if there else None,
                "f1": 2 * hits / (answered + there) if there else None,
                "average_precision": float(average(truth, chance)) if there else None,
            }
        )
    return rows


def confusion(answers: Answers) -> np.ndarray:
    """(C, C) counts: rows are the classes that photos are of, columns the answers."""
    count = len(answers.classes)
    flat = np.bincount(answers.truth * count + answers.predicted, minlength=count * count)
    return flat.reshape(count, count)


@dataclass(frozen=True)
class Calibration:
    """How far confidence says how often an answer is right.

    bins: (lowest, highest, photos, mean confidence, part right) of each bin of `BINS` that holds any; with several
    labels a label is an answer, its confidence the probability. error: the expected calibration error, the mean
    distance of both over the answers.
    """

    bins: tuple[tuple[float, float, int, float, float], ...]
    error: float


def calibration(answers: Answers) -> Calibration:
    """Over the most probable class of each photo, or over all labels."""
    if answers.several:
        confidence, right = answers.probabilities.ravel(), answers.truth.ravel() > 0
    else:
        confidence, right = answers.probabilities.max(1), answers.right
    confidence = confidence.astype(np.float64)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    found, error = [], 0.0
    for number in range(BINS):
        here = place == number
        if not here.any():
            continue
        mean, part = float(confidence[here].mean()), float(right[here].mean())
        found.append((number / BINS, (number + 1) / BINS, int(here.sum()), mean, part))
        error += here.mean() * abs(mean - part)
    return Calibration(tuple(found), float(error))


def by_size(answers: Answers) -> list[dict[str, Any]]:
    """The error in up to five parts of equal numbers of photos, from small to large; none where sizes are not known."""
    known = np.flatnonzero(np.isfinite(answers.sizes))
    parts = min(5, len(known) // FEWEST)
    if parts < 2:
        return []
    order = known[np.argsort(answers.sizes[known], kind="stable")]
    rows = []
    for places in np.array_split(order, parts):
        error = Proportion.of(~answers.right[places])
        sizes = answers.sizes[places]
        rows.append(
            {
                "from": float(sizes.min()), "to": float(sizes.max()), "photos": len(places),
                "error": error.value, "low": error.low, "high": error.high,
            }
        )  # fmt: skip
    return rows


def thresholds(answers: Answers) -> list[float]:
    """For each label the threshold with the largest F1 on these photos (`metrics.multilabel.best_threshold`)."""
    chances, truth = torch.from_numpy(answers.probabilities), torch.from_numpy(answers.truth > 0)
    return [float(best_threshold(chances[:, c], truth[:, c])) for c in range(len(answers.classes))]


def against(answers: Answers, base: Answers) -> dict[str, Any]:
    """Two networks on the same photos, paired: `value` is the base's error less this one's.

    One class a photo: McNemar's exact test (`measure.proportions.Difference`). Several: the mean number of wrong labels
    a photo, Student's t over the photos. `ValueError` where photos, their labels or classes differ.
    """
    if answers.paths != base.paths or answers.classes != base.classes or not np.array_equal(answers.truth, base.truth):
        raise ValueError("the two networks were not tested on the same photos with the same classes")
    if not answers.several:
        found = Difference.of(base.right, answers.right)
        return {
            "only_this_right": found.only_elastic, "only_other_right": found.only_base, "value": found.value,
            "low": found.low, "high": found.high, "p_value": found.p_value, "test": "McNemar's exact test",
        }  # fmt: skip
    wrong, other = (((a.probabilities > 0.5) != (a.truth > 0)).sum(1) for a in (answers, base))
    value = float((other - wrong).mean())
    row: dict[str, Any] = {
        "only_this_right": int((wrong < other).sum()),
        "only_other_right": int((other < wrong).sum()),
    }
    row |= {"value": value, "low": value, "high": value, "p_value": 1.0, "test": "Student's t of wrong labels a photo"}
    if len(wrong) > 1 and np.ptp(other - wrong) > 0:
        test = require("scipy.stats", "figures").ttest_rel(other, wrong)
        interval = test.confidence_interval(0.95)
        row |= {"low": float(interval.low), "high": float(interval.high), "p_value": float(test.pvalue)}
    return row


def worst(answers: Answers, count: int = 24) -> Sequence[int]:
    """Rows of wrong answers, those with the largest loss first."""
    right = answers.right
    return [int(row) for row in np.argsort(-answers.loss, kind="stable") if not right[row]][:count]
