"""Set-wide IoU against scikit-learn on flattened pixels and against a slow reference by sets of pixels."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, jaccard_score

from elastic_cnn.metrics.segmentation import IGNORE, PixelConfusion, iou_per_class, mean_iou, pixel_accuracy

SHAPE = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


def _sample(seed: int, classes: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < 0.2] = IGNORE
    return torch.randint(0, classes, shape, generator=generator), targets


def _count(preds: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
    metric = PixelConfusion(classes)
    metric.update(preds, targets)
    return metric.compute()


def _slow_iou(preds: np.ndarray, targets: np.ndarray, classes: int) -> list[float]:
    """By sets of pixel positions."""
    valid = {p for p in np.ndindex(targets.shape) if targets[p] != IGNORE}
    scores = []
    for c in range(classes):
        predicted, true = {p for p in valid if preds[p] == c}, {p for p in valid if targets[p] == c}
        union = predicted | true
        scores.append(len(predicted & true) / len(union) if union else math.nan)
    return scores


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), shape=SHAPE)
def test_equals_sklearn_and_the_slow_reference(seed, classes, shape):
    preds, targets = _sample(seed, classes, shape)
    if (targets == IGNORE).all():
        targets[0, 0, 0] = 0
    confusion = _count(preds, targets, classes)
    keep = targets != IGNORE
    y, p = targets[keep].numpy(), preds[keep].numpy()
    present = sorted(set(y) | set(p))
    scores = iou_per_class(confusion).numpy()

    # counts below 2^53 are exact in float64, so each quotient is rounded once on both sides
    np.testing.assert_allclose(scores, _slow_iou(preds.numpy(), targets.numpy(), classes), rtol=0, atol=1e-15)
    expected = jaccard_score(y, p, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose(scores[present], expected, rtol=0, atol=1e-15)
    assert mean_iou(confusion) == pytest.approx(np.mean(expected), abs=1e-12)
    assert pixel_accuracy(confusion) == pytest.approx(accuracy_score(y, p), abs=1e-12)


def test_counts_do_not_depend_on_how_the_set_was_divided():
    preds, targets = _sample(3, 5, (7, 20, 30))
    whole = _count(preds, targets, 5)
    parts = PixelConfusion(5)
    for start, end in ((0, 1), (1, 4), (4, 7)):
        parts.update(preds[start:end], targets[start:end])
    assert whole.dtype == torch.int64
    assert torch.equal(whole, parts.compute())


TWO_PROCESSES = """
import sys
import torch
import torch.distributed as dist
from elastic_cnn.metrics.segmentation import PixelConfusion
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
preds, targets = torch.load(f"{folder}/sample.pt")
mine = slice(0, 1) if rank == 0 else slice(1, 4)  # processes may see different numbers of images
metric = PixelConfusion(5)
metric.update(preds[mine], targets[mine])
torch.save(metric.compute(), f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_get_the_matrix_of_the_whole_set(tmp_path):
    sample = _sample(7, 5, (4, 12, 9))
    torch.save(sample, tmp_path / "sample.pt")
    started = [subprocess.Popen([sys.executable, "-c", TWO_PROCESSES, str(rank), tmp_path]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    whole = _count(*sample, 5)
    for rank in (0, 1):
        merged = torch.load(tmp_path / f"{rank}.pt")
        assert merged.dtype == torch.int64
        assert torch.equal(merged, whole)


def test_is_not_the_mean_over_images():
    """Two images: all right on a large one, all wrong on a small part of a class: totals of the set decide."""
    targets = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    preds = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]])
    confusion = _count(preds, targets, 2)
    assert iou_per_class(confusion).tolist() == [3 / 4, 4 / 5]
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_logits_are_taken_by_their_largest():
    preds, targets = _sample(5, 4, (2, 5, 6))
    logits = torch.nn.functional.one_hot(preds, 4).permute(0, 3, 1, 2).float()
    assert torch.equal(_count(logits, targets, 4), _count(preds, targets, 4))


def test_a_class_that_never_occurs_is_left_out_of_the_mean():
    targets = torch.tensor([[[0, 1, IGNORE]]])
    confusion = _count(torch.tensor([[[0, 1, 2]]]), targets, 3)
    assert math.isnan(iou_per_class(confusion)[2])
    assert mean_iou(confusion) == 1.0


def test_nothing_counted_is_nan():
    confusion = _count(torch.zeros(1, 2, 2, dtype=torch.long), torch.full((1, 2, 2), IGNORE), 2)
    assert math.isnan(mean_iou(confusion))
    assert math.isnan(pixel_accuracy(confusion))
