"""Scores of multi-label classification: precision, recall and F1 per class and overall, and by object size; mAP.

Everything but mAP is made of integer counts, added over batches and processes and divided once, in float64, at the
end: the result does not depend on how the images were divided, to the last digit.

An image is positive for a class if it holds an object of the class, and for (class, size) if it holds one of that size.
True positives and misses are counted for each size; false positives are shared by the sizes: the class is predicted
and the image holds no object of it, of any size (paper, section 4.2). A class without a true positive has F1 = 0.

A class or a size that no image holds has no score: its precision, recall and F1 are NaN. The paper's mean over the
classes takes them as 0 (`f1_per_class`); `f1_per_class_present` is the mean over the classes that occur.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from elastic_cnn.extras import require

require("torchmetrics", "train")
from torchmetrics import Metric  # noqa: E402  (after the message that names the extra)
from torchmetrics.functional.classification import binary_average_precision  # noqa: E402
from torchmetrics.utilities import dim_zero_cat  # noqa: E402

SIZE_NAMES = ("small", "medium", "large")


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator of integer counts in float64, 0 where the denominator is 0 (and so the numerator)."""
    return numerator.double() / denominator.clamp(min=1).double()


def precision_recall_f1(true_positives: Tensor, false_positives: Tensor, misses: Tensor) -> dict[str, Tensor]:
    """{"precision", "recall", "f1"} of integer counts of any one shape, in float64; 0 where nothing was counted."""
    return {
        "precision": ratio(true_positives, true_positives + false_positives),
        "recall": ratio(true_positives, true_positives + misses),
        "f1": ratio(2 * true_positives, 2 * true_positives + false_positives + misses),
    }


class MultilabelScores(Metric):
    """Precision, recall and F1, per class and overall, for all objects and by object size.

    num_classes: C.
    size_names: names of the S sizes in the order of `size_targets`.
    threshold: a label is predicted when its probability exceeds it.

    `compute()` gives fractions as float64 scalars: `f1_per_class` (the mean of the classes' F1), `f1_overall` (F1 of
    the pooled counts), `precision_...` and `recall_...` likewise, `f1_per_class_present` (the mean over the classes
    that occur; NaN where none does), and, when `size_targets` were given, each of them by size as `f1_per_class_small`,
    NaN where no object of the size occurs. `per_class()` gives the values of every class. Over no image at all: zeros.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    true_positives: Tensor
    misses: Tensor
    false_positives: Tensor
    images: Tensor
    sized_images: Tensor

    def __init__(
        self, num_classes: int, size_names: Sequence[str] = SIZE_NAMES, threshold: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be a probability in [0, 1), got {threshold}")
        self.num_classes = num_classes
        self.size_names = tuple(size_names)
        self.threshold = threshold
        rows = 1 + len(self.size_names)  # row 0: objects of any size
        for name, shape in (
            ("true_positives", (rows, num_classes)),
            ("misses", (rows, num_classes)),
            ("false_positives", (num_classes,)),
            ("images", ()),
            ("sized_images", ()),
        ):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor, size_targets: Tensor | None = None) -> None:
        """Count a batch.

        probabilities: (N, C) in [0, 1]. targets: (N, C), 1 where the image holds the class. size_targets: (N, S, C), 1
        where it holds an object of the class of this size; their union is `targets`. Give it always or never.

        Raises `ValueError` for other shapes, probabilities that are NaN or outside [0, 1], and size targets that are
        positive where the targets are not (or the reverse).
        """
        self._check(probabilities, targets, size_targets)
        predicted = probabilities > self.threshold  # (N, C)
        positive = targets.bool()  # (N, C)
        by_size = positive[:, None]  # (N, 1 + S, C)
        if size_targets is not None:
            by_size = torch.cat([by_size, size_targets.bool()], dim=1)
            self.sized_images += len(probabilities)
        rows = by_size.shape[1]
        self.true_positives[:rows] += (by_size & predicted[:, None]).sum(0)
        self.misses[:rows] += (by_size & ~predicted[:, None]).sum(0)
        self.false_positives += (predicted & ~positive).sum(0)
        self.images += len(probabilities)

    def _check(self, probabilities: Tensor, targets: Tensor, size_targets: Tensor | None) -> None:
        if probabilities.ndim != 2 or probabilities.shape[1] != self.num_classes:
            raise ValueError(f"probabilities must be (N, {self.num_classes}), got {tuple(probabilities.shape)}")
        if targets.shape != probabilities.shape:
            raise ValueError(f"targets must be {tuple(probabilities.shape)}, got {tuple(targets.shape)}")
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError("probabilities must lie in [0, 1]; they are NaN or logits without a sigmoid")
        if size_targets is None:
            return
        expected = (len(targets), len(self.size_names), self.num_classes)
        if size_targets.shape != expected:
            raise ValueError(f"size_targets must be {expected}, got {tuple(size_targets.shape)}")
        if not torch.equal(size_targets.bool().any(1), targets.bool()):
            raise ValueError("size_targets and targets disagree: a class is positive exactly if one of its sizes is")

    def compute(self) -> dict[str, Tensor]:
        """{name: float64 scalar}; see the class."""
        scores: dict[str, Tensor] = {}
        for suffix, true_positives, misses in self._rows():
            counts = (true_positives, self.false_positives, misses)  # each (C,)
            present = true_positives + misses > 0  # (C,)
            of_row = {}
            for name, value in precision_recall_f1(*counts).items():
                of_row[f"{name}_per_class{suffix}"] = value.mean()
                if name == "f1":
                    of_row[f"f1_per_class_present{suffix}"] = value[present].mean()
            for name, value in precision_recall_f1(*(count.sum() for count in counts)).items():
                of_row[f"{name}_overall{suffix}"] = value
            if suffix and not present.any():
                of_row = {name: torch.full_like(value, torch.nan) for name, value in of_row.items()}
            scores |= of_row
        return scores

    def per_class(self) -> dict[str, Tensor]:
        """{"precision", "recall", "f1": float64 (C,), "positives": int64 (C,)}, by size too as `f1_small`.

        NaN for a class that does not occur (at that size), also where it was predicted.
        Of this process's counts alone, unless called inside `sync_context()`.
        """
        scores: dict[str, Tensor] = {}
        for suffix, true_positives, misses in self._rows():
            positives = true_positives + misses
            for name, value in precision_recall_f1(true_positives, self.false_positives, misses).items():
                scores[f"{name}{suffix}"] = value.masked_fill(positives == 0, torch.nan)
            scores[f"positives{suffix}"] = positives
        return scores

    def _rows(self) -> list[tuple[str, Tensor, Tensor]]:
        """(suffix of the names, true positives (C,), misses (C,)) of all objects, then of each size that was given."""
        sized = int(self.sized_images)
        if sized not in (0, int(self.images)):
            raise ValueError(
                f"size_targets were given for {sized} of {int(self.images)} images: give them always or never"
            )
        suffixes = ["", *(f"_{name}" for name in self.size_names if sized)]
        return list(zip(suffixes, self.true_positives, self.misses, strict=False))


def best_threshold(probabilities: Tensor, targets: Tensor) -> Tensor:
    """The threshold above which labels (N,) have the largest F1, (), from probabilities (N,): halfway between those on
    its two sides, among equals the nearest to 0.5; 0.5 where no label is true."""
    if not bool(targets.any()):
        return torch.tensor(0.5, dtype=torch.float64)
    ordered, order = probabilities.double().sort(descending=True, stable=True)
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    apart = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool)])  # a cut splits no tie
    hits = targets[order].double().cumsum(0)
    scores = 2 * hits / (torch.arange(1, len(ordered) + 1) + targets.sum())
    cuts = ((ordered + below) / 2)[apart & (scores >= scores[apart].max() - 1e-12)]
    return cuts[(cuts - 0.5).abs().argmin()]


class MeanAveragePrecision(Metric):
    """mAP: the mean of torchmetrics' average precision over the classes; those without a positive image are left out.

    `compute()`: a float64 scalar, NaN where no class has a positive image. Ties of probability count as one threshold,
    so the order of the images is of no account. It holds all probabilities (12.8 MB for 40,000 images of 80 classes).
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Keep a batch: `probabilities` (N, C) in [0, 1], `targets` (N, C)."""
        if (
            probabilities.ndim != 2
            or probabilities.shape[1] != self.num_classes
            or targets.shape != probabilities.shape
        ):
            raise ValueError(
                f"probabilities and targets must be (N, {self.num_classes}), got {tuple(probabilities.shape)} and "
                f"{tuple(targets.shape)}"
            )
        # flat and of one type: so torchmetrics joins them with the empty state of a process without images
        self.probabilities.append(probabilities.detach().float().flatten())
        self.targets.append(targets.float().flatten())

    def compute(self) -> Tensor:
        return self.class_precisions().nanmean()

    def class_thresholds(self) -> Tensor:
        """The threshold of each class with the largest F1 on what was kept, float64 (C,); 0.5 for a class without a
        positive image."""
        if not len(self.probabilities):
            return torch.full((self.num_classes,), 0.5, dtype=torch.float64)
        probabilities = dim_zero_cat(self.probabilities).view(-1, self.num_classes).cpu().double()
        targets = dim_zero_cat(self.targets).view(-1, self.num_classes).cpu() > 0
        return torch.stack([best_threshold(probabilities[:, c], targets[:, c]) for c in range(self.num_classes)])

    def class_precisions(self) -> Tensor:
        """Average precision of each class, float64 (C,), NaN for a class without a positive image."""
        precisions = torch.full((self.num_classes,), torch.nan, dtype=torch.float64, device=self.device)
        if not len(self.probabilities):
            return precisions
        probabilities = dim_zero_cat(self.probabilities).view(-1, self.num_classes)  # (N, C)
        targets = dim_zero_cat(self.targets).view(-1, self.num_classes)  # (N, C)
        for c in targets.any(0).nonzero().flatten().tolist():
            precisions[c] = binary_average_precision(probabilities[:, c], targets[:, c].long(), validate_args=False)
        return precisions
