"""From logits to words, against probabilities computed by numpy."""

import numpy as np
import pytest
import torch

from elastic_cnn.policy.answers import interpret

CLASSES = ("a", "b", "c")


def test_classification_ranks_by_softmax():
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]])
    first, second = interpret(logits, "classification", CLASSES, top=2)
    expected = np.exp([3.0, 2.0]) / np.exp([1.0, 3.0, 2.0]).sum()
    assert [name for name, _ in first.ranked] == ["b", "c"]
    np.testing.assert_allclose([p for _, p in first.ranked], expected, rtol=1e-6)
    assert (first.prediction, second.prediction) == ("b", "a")
    assert first.confidence == first.ranked[0][1]


def test_multilabel_lists_classes_above_the_threshold():
    logits = torch.tensor([[2.0, 0.0, 0.1], [-1.0, -2.0, -3.0]])
    first, second = interpret(logits, "multilabel", CLASSES, top=3)
    assert first.prediction == ["a", "c"]  # exactly one half is not above
    assert second.prediction == []
    np.testing.assert_allclose(first.confidence, 1 / (1 + np.exp(-2.0)), rtol=1e-6)
    assert interpret(logits, "multilabel", CLASSES, threshold=0.2)[1].prediction == ["a"]


def test_right_and_wrong():
    known = frozenset(CLASSES)
    (one,) = interpret(torch.tensor([[0.0, 9.0, 0.0]]), "classification", CLASSES)
    assert [one.is_right(label, known) for label in ("b", "a", "z", None)] == [True, False, None, None]
    (two,) = interpret(torch.tensor([[5.0, -5.0, 5.0]]), "multilabel", CLASSES)
    assert [two.is_right(label, known) for label in (["c", "a"], ["a"], ["a", "z"], None)] == [True, False, None, None]


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(2, 4), "do not fit 3 class names"),
        (torch.zeros(3), "do not fit"),
        (torch.full((1, 3), torch.nan), "not finite"),
    ],
)
def test_other_logits_are_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        interpret(logits, "classification", CLASSES)
