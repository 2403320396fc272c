"""F1 by class and by size against scikit-learn and a slow count, image by image; sums over processes."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from elastic_cnn.metrics.multilabel import SIZE_NAMES, MeanAveragePrecision, MultilabelScores


def make_case(seed: int, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (N, C) with ties and values at the threshold, targets (N, C), size targets (N, 3, C)."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randint(0, 21, (images, classes), generator=generator) / 20
    sizes = torch.rand(images, 3, classes, generator=generator) < 0.2
    return probabilities, sizes.any(1), sizes


def slow_scores(probabilities: np.ndarray, sizes: np.ndarray, threshold: float) -> dict[str, float]:
    """The paper's definition, spelled out one image and one label at a time; NaN for what no image holds."""
    images, _, classes = sizes.shape
    scores = {}
    for row, suffix in enumerate(["", *(f"_{name}" for name in SIZE_NAMES)]):
        f1s, of_present, pooled = [], [], [0, 0, 0]
        for c in range(classes):
            hits = false_alarms = misses = 0
            for n in range(images):
                holds_any = any(sizes[n, s, c] for s in range(3))
                positive = holds_any if row == 0 else sizes[n, row - 1, c]
                predicted = probabilities[n, c] > threshold
                if positive and predicted:
                    hits += 1
                elif positive:
                    misses += 1
                if predicted and not holds_any:
                    false_alarms += 1
            precision = hits / (hits + false_alarms) if hits else 0.0
            recall = hits / (hits + misses) if hits else 0.0
            f1s.append(2 * precision * recall / (precision + recall) if hits else 0.0)
            of_present += f1s[-1:] if hits + misses else []
            pooled = [pooled[0] + hits, pooled[1] + false_alarms, pooled[2] + misses]
        hits, false_alarms, misses = pooled
        precision = hits / (hits + false_alarms) if hits else 0.0
        recall = hits / (hits + misses) if hits else 0.0
        scores[f"f1_per_class{suffix}"] = sum(f1s) / classes
        scores[f"f1_overall{suffix}"] = 2 * precision * recall / (precision + recall) if hits else 0.0
        scores[f"precision_overall{suffix}"] = precision
        scores[f"recall_overall{suffix}"] = recall
        scores[f"f1_per_class_present{suffix}"] = sum(of_present) / len(of_present) if of_present else math.nan
        if suffix and not of_present:
            scores |= {name: math.nan for name in scores if name.endswith(suffix)}
    return scores


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 12),
    classes=st.integers(1, 6),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    batch=st.integers(1, 5),
)
def test_scores_equal_a_count_of_single_labels(seed, images, classes, threshold, batch):
    probabilities, targets, sizes = make_case(seed, images, classes)
    metric = MultilabelScores(classes, threshold=threshold)
    for start in range(0, images, batch):
        part = slice(start, start + batch)
        metric.update(probabilities[part], targets[part], sizes[part])
    scores = metric.compute()
    # 1e-12: both divide in float64, the reference by way of precision and recall
    for name, expected in slow_scores(probabilities.numpy(), sizes.numpy(), threshold).items():
        assert scores[name].item() == pytest.approx(expected, abs=1e-12, nan_ok=True), name
        assert scores[name].dtype == torch.float64


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 40), classes=st.integers(2, 9))
def test_scores_equal_scikit_learn(seed, images, classes):
    probabilities, targets, _ = make_case(seed, images, classes)
    metric = MultilabelScores(classes)
    metric.update(probabilities, targets)
    scores = metric.compute()
    truth, predicted = targets.numpy(), (probabilities > 0.5).numpy()
    for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        macro = function(truth, predicted, average="macro", zero_division=0)
        micro = function(truth, predicted, average="micro", zero_division=0)
        assert scores[f"{name}_per_class"].item() == pytest.approx(macro, abs=1e-12)
        assert scores[f"{name}_overall"].item() == pytest.approx(micro, abs=1e-12)
        each = np.where(truth.any(0), function(truth, predicted, average=None, zero_division=0), np.nan)
        np.testing.assert_allclose(metric.per_class()[name].numpy(), each, atol=1e-12)
    assert "f1_per_class_small" not in scores


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 40), classes=st.integers(2, 6))
def test_map_equals_scikit_learn(seed, images, classes):
    probabilities, targets, _ = make_case(seed, images, classes)
    metric = MeanAveragePrecision(classes)
    metric.update(probabilities[:7], targets[:7])
    if images > 7:
        metric.update(probabilities[7:], targets[7:])
    each = [average_precision_score(targets[:, c], probabilities[:, c]) for c in range(classes) if targets[:, c].any()]
    if not each:
        assert metric.compute().isnan()
    else:  # torchmetrics divides in float32
        assert metric.compute().item() == pytest.approx(np.mean(each), abs=1e-5)
    assert metric.class_precisions().isnan().tolist() == (~targets.any(0)).tolist()


def test_false_positives_are_shared_by_the_sizes():
    """One class, four images: a small object found, a large one missed, a false alarm, small beside large found."""
    sizes = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]])[..., None]
    metric = MultilabelScores(1)
    metric.update(torch.tensor([[0.9], [0.1], [0.8], [0.7]]), sizes.amax(1), sizes)
    scores = metric.compute()
    assert scores["f1_overall"].item() == 2 * 2 / (2 * 2 + 1 + 1)
    assert scores["f1_overall_small"].item() == 2 * 2 / (2 * 2 + 1 + 0)
    assert scores["f1_overall_medium"].isnan()  # no medium object at all
    assert scores["f1_overall_large"].item() == 2 * 1 / (2 * 1 + 1 + 1)
    assert metric.per_class()["positives_large"].tolist() == [2]


def test_perfect_answers_score_1_on_what_occurs():
    """Class 3 never occurs, nor do small and large objects: the paper's mean counts the class as 0."""
    images = torch.arange(6)
    sizes = torch.zeros(6, 3, 4, dtype=torch.bool)
    sizes[images, 1, images % 3] = True
    metric = MultilabelScores(4)
    metric.update(sizes.any(1).float(), sizes.any(1), sizes)
    scores, each = metric.compute(), metric.per_class()
    assert [scores[f"f1_per_class{end}"].item() for end in ("", "_present", "_medium")] == [0.75, 1.0, 0.75]
    assert scores["f1_per_class_present_medium"] == scores["f1_overall_medium"] == 1
    absent = [name for name, value in scores.items() if value.isnan()]
    assert len(absent) == 14
    assert {name.rsplit("_", 1)[1] for name in absent} == {"small", "large"}
    for name in ("precision", "recall", "f1", "f1_medium"):
        assert each[name][:3].tolist() == [1, 1, 1]
        assert each[name][3].isnan()
    metric.update(torch.ones(1, 4), torch.zeros(1, 4), torch.zeros(1, 3, 4))  # a false alarm makes no class occur
    assert metric.per_class()["f1"][3].isnan()


def test_a_probability_at_the_threshold_is_no_prediction():
    metric = MultilabelScores(1)
    metric.update(torch.tensor([[0.5]]), torch.tensor([[0]]))
    assert metric.false_positives.tolist() == [0]


def test_no_images_score_zero():
    scores, precision = MultilabelScores(3), MeanAveragePrecision(3)
    scores.update(torch.zeros(0, 3), torch.zeros(0, 3))
    precision.update(torch.zeros(0, 3), torch.zeros(0, 3))
    found = scores.compute()
    assert found.pop("f1_per_class_present").isnan()
    assert all(value == 0 for value in found.values())
    assert precision.compute().isnan()


@pytest.mark.parametrize(
    ("probabilities", "targets", "sizes", "message"),
    [
        (torch.zeros(2, 4), torch.zeros(2, 4), None, r"\(N, 3\), got \(2, 4\)"),
        (torch.zeros(2, 3), torch.zeros(3, 3), None, r"targets must be \(2, 3\), got \(3, 3\)"),
        (torch.full((2, 3), -1.5), torch.zeros(2, 3), None, "sigmoid"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3), None, "NaN"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2, 3), r"\(2, 3, 3\), got \(2, 2, 3\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3, 3), "disagree"),
    ],
)
def test_bad_input_is_named(probabilities, targets, sizes, message):
    with pytest.raises(ValueError, match=message):
        MultilabelScores(3).update(probabilities, targets, sizes)


def test_sizes_are_given_always_or_never():
    metric = MultilabelScores(2)
    metric.update(torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1, 3, 2))
    metric.update(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="1 of 4 images"):
        metric.compute()


TWO_PROCESSES = """
import json, sys, torch
import torch.distributed as dist
from elastic_cnn.metrics.multilabel import MeanAveragePrecision, MultilabelScores

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
case = torch.load(f"{folder}/case.pt")
results = []
for images in (len(case["targets"]), 1):  # of a single image the second process sees none
    scores, precision = MultilabelScores(case["targets"].shape[1]), MeanAveragePrecision(case["targets"].shape[1])
    for part in torch.arange(rank, images, 2).split(7):
        if len(part):
            scores.update(case["probabilities"][part], case["targets"][part], case["sizes"][part])
            precision.update(case["probabilities"][part], case["targets"][part])
    results.append({name: value.item().hex() for name, value in scores.compute().items()})
    results[-1]["map"] = precision.compute().item().hex()
with open(f"{folder}/result_{rank}.json", "w") as file:
    json.dump(results, file)
dist.destroy_process_group()
"""


def test_two_processes_give_the_scores_of_one_to_the_last_digit(tmp_path):
    _, targets, sizes = make_case(3, 101, 20)  # an odd number: the processes see 51 and 50 images
    probabilities = torch.rand(101, 20)
    torch.save({"probabilities": probabilities, "targets": targets, "sizes": sizes}, tmp_path / "case.pt")
    (tmp_path / "program.py").write_text(TWO_PROCESSES)
    program = [sys.executable, str(tmp_path / "program.py")]
    processes = [subprocess.Popen([*program, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=100) for process in processes] == [0, 0]

    expected = []
    for images in (101, 1):
        scores, precision = MultilabelScores(20), MeanAveragePrecision(20)
        scores.update(probabilities[:images], targets[:images], sizes[:images])
        precision.update(probabilities[:images], targets[:images])
        expected.append({name: value.item().hex() for name, value in scores.compute().items()})
        expected[-1]["map"] = precision.compute().item().hex()
    assert len(expected[0]) == 4 * 7 + 1
    for rank in range(2):
        assert json.loads((tmp_path / f"result_{rank}.json").read_text()) == expected
