"""Scores of semantic segmentation over a whole set: intersection over union (IoU) by class, its mean, pixel accuracy.

All come from one confusion matrix of whole numbers, which is added over batches and processes and divided once at the
end. This is VOC's mIoU. The mean over images of each image's IoU (torchmetrics' `MeanIoU`) is another number.
"""

import torch
from torch import Tensor

from elastic_cnn.extras import require

require("torchmetrics", "train")
from torchmetrics.classification import MulticlassConfusionMatrix  # noqa: E402  (after the message naming the extra)

IGNORE = 255


class PixelConfusion(MulticlassConfusionMatrix):
    """Counts pixels: `update(preds, targets)`, `compute()` -> `(classes, classes)` int64, row the true class.

    preds: (N, H, W) whole numbers in 0..classes - 1, or logits (N, classes, H, W). targets: (N, H, W); pixels of value
    `ignore_index` do not count. Processes add their matrices. Labels are not checked here (`data/masks.py` does).
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False)


def iou_per_class(confusion: Tensor) -> Tensor:
    """`(classes, classes)` counts -> `(classes,)` float64: true positives / (true or predicted).

    NaN for a class that is neither in the targets nor in the predictions.
    """
    confusion = confusion.to(torch.float64)
    hits = confusion.diagonal()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def mean_iou(confusion: Tensor) -> float:
    """The mean of `iou_per_class` over the classes that occur; NaN where no pixel was counted."""
    return float(iou_per_class(confusion).nanmean())


def pixel_accuracy(confusion: Tensor) -> float:
    """The fraction of counted pixels whose class is right; NaN where no pixel was counted."""
    confusion = confusion.to(torch.float64)
    return float(confusion.diagonal().sum() / confusion.sum())
