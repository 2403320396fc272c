"""Results of the shape that a run of the demo has, without training."""

from dataclasses import replace

import numpy as np
import pytest

from elastic_cnn.data.digits import CLASSES, make_digits
from elastic_cnn.demo.measure import divide_by_size
from elastic_cnn.demo.results import NetworkResult, Policy, Results
from elastic_cnn.measure.correlations import spearman
from elastic_cnn.measure.proportions import Difference, Proportion
from elastic_cnn.policy.scores import BlockInfo


@pytest.fixture(scope="session")
def results() -> Results:
    """120 digits; the base errs on small digits, Elastic less so; the second block's score falls with size."""
    digits = make_digits("val", 120)
    rng = np.random.default_rng(0)
    labels, sizes = digits.labels.numpy(), digits.sizes.numpy().astype(np.float64)
    wrong = rng.random((2, 120)) < np.stack([12 / sizes / 2, 8 / sizes / 2])
    predictions = np.where(wrong, (labels + 1) % 10, labels)

    def network(name: str, title: str, guess: np.ndarray, rate: float) -> NetworkResult:
        losses = [(0.5, 2.2), (1.0, 1.6), (1.5, 1.2), (2.0, 1.0)]
        return NetworkResult(name, title, 2_297_000, 42_200_000, rate, 61.0, losses, [(1, 0.5), (2, 0.25)], guess)

    scores = rng.normal(0, 1, (120, 3)).astype(np.float32)
    scores[:, 1] -= 2 * np.log(sizes)
    blocks = [BlockInfo(f"layer1.{i}", (1, 2), 1, 16, 16) for i in range(3)]
    correlations = [spearman(sizes, column) for column in scores.T]
    return Results(
        kind="digits", name="handwritten digits in clutter", classes=CLASSES, images=digits.images.numpy(),
        labels=labels, sizes=sizes, base=network("resnext_small", "ResNeXt small", predictions[0], 500.0),
        elastic=network("resnext_small_elastic", "ResNeXt small + Elastic", predictions[1], 400.0),
        base_error=Proportion.of(wrong[0]), elastic_error=Proportion.of(wrong[1]),
        difference=Difference.of(~wrong[0], ~wrong[1]), bins=divide_by_size(sizes, *wrong),
        policy=Policy(blocks, scores, correlations, np.arange(100), rng.normal(0, 1, (100, 2)).astype(np.float32)),
        train_images=1000, epochs=2, image_size=64, seed=0, command="elastic demo --seed 0", seconds=130.0,
        machine={"versions": "torch 2", "hardware": "2 cores"}, notes=[],
    )  # fmt: skip


@pytest.fixture(scope="session")
def photo_results(results: Results) -> Results:
    """The same as if of photos, whose sizes are not known; with names that HTML could trip over."""
    classes = ("<b>cats</b>", "dogs & wolves", *map(str, range(2, 10)))
    policy = replace(results.policy, correlations=None)
    notes = ["100 of the 400 photos in train were used, drawn at random."]
    return replace(
        results, kind="photos", name="holiday <1>", classes=classes, sizes=None, bins=[], policy=policy, notes=notes
    )
