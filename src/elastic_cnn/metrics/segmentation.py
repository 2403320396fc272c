"""Scores of semantic segmentation over a whole set: intersection over union (IoU) by class, its mean, pixel accuracy.

All come from one confusion matrix of whole numbers, which is added over batches and processes and divided once at the
end. This is VOC's mIoU. The mean over images of each image's IoU (torchmetrics' `MeanIoU`) is another number.
"""

from collections.abc import Sequence

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


def iou_table(confusion: Tensor, classes: Sequence[str]) -> str:
    """A table for people, per cent: IoU, recall, precision and part of the pixels of each class; below it the means."""
    counts = confusion.to(torch.float64)
    columns = torch.stack(
        [
            iou_per_class(confusion),
            counts.diagonal() / counts.sum(1),
            counts.diagonal() / counts.sum(0),
            counts.sum(1) / counts.sum(),
        ]
    )  # (4, classes)
    width = max(len("mean"), *map(len, classes))
    lines = [f"{'class':<{width}}     IoU  recall  precision  pixels"]
    for name, (iou, recall, precision, part) in zip(classes, (100 * columns.T).tolist(), strict=True):
        lines.append(f"{name:<{width}}  {iou:6.2f}  {recall:6.2f}     {precision:6.2f}  {part:6.2f}")
    lines.append(
        f"{'mean':<{width}}  {100 * mean_iou(confusion):6.2f}   pixel accuracy {100 * pixel_accuracy(confusion):.2f}"
    )
    return "\n".join(lines)
