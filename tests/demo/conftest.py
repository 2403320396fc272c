"""Results of the shape that a run of the demo has, without training."""

from dataclasses import replace

import numpy as np
import pytest

from elastic_cnn.data.digits import CLASSES, make_digits
from elastic_cnn.demo.results import Converted, NetworkResult, Policy, Results, Speed, Trained, divide_by_size
from elastic_cnn.measure.correlations import spearman
from elastic_cnn.measure.medians import MedianInterval
from elastic_cnn.policy.scores import BlockInfo

SEEDS = (3, 4, 5, 6)


@pytest.fixture(scope="session")
def results() -> Results:
    """120 digits, four seeds; the base errs on small ones, Elastic less; the second block's score falls with size."""
    digits = make_digits("val", 120)
    rng = np.random.default_rng(0)
    labels, sizes = digits.labels.numpy(), digits.sizes.numpy().astype(np.float64)

    def network(name: str, title: str, strength: float) -> tuple[NetworkResult, list[np.ndarray]]:
        wrong = [rng.random(120) < strength / sizes for _ in SEEDS]
        losses = [(0.5, 2.2), (1.0, 1.6), (1.5, 1.2), (2.0, 1.0)]
        runs = [
            Trained(
                seed, losses, [(1, seed / 10), (2, seed / 20)], np.where(w, (labels + 1) % 10, labels),
                float(w.mean()), 61.0,
            )
            for seed, w in zip(SEEDS, wrong, strict=True)
        ]  # fmt: skip
        return NetworkResult(name, title, 587_000, 10_400_000, runs), wrong

    base, base_wrong = network("resnext_small", "ResNeXt small", 9)
    elastic, elastic_wrong = network("resnext_small_elastic", "ResNeXt small + Elastic", 2)
    scores = rng.normal(0, 1, (120, 3)).astype(np.float32)
    scores[:, 1] -= 2 * np.log(sizes)
    blocks = [BlockInfo(f"layer1.{i}", (1, 2), 1, 16, 16) for i in range(3)]
    correlations = [spearman(sizes, column) for column in scores.T]
    times = {"elastic": MedianInterval(1.2, 1.15, 1.25), "converted": MedianInterval(0.9, 0.88, 0.93)}
    rates = {"base": 5000.0, "elastic": 4100.0, "converted": 5500.0}
    return Results(
        kind="digits", name="handwritten digits in clutter", classes=CLASSES, images=digits.images.numpy(),
        labels=labels, sizes=sizes, base=base, elastic=elastic, bins=divide_by_size(sizes, base_wrong, elastic_wrong),
        speed=Speed("optimize_for_inference, float32, batches of 64, 2 threads", 64, rates, times),
        converted=Converted(3, 0.95, 0.25, 0.27, 512, 12.0, 0.946, 5),
        policy=Policy(blocks, scores, correlations, np.arange(100), rng.normal(0, 1, (100, 2)).astype(np.float32)),
        train_images=1000, epochs=2, image_size=64, precision="fp32", seed=3, command="elastic demo --seed 3",
        seconds=130.0, machine={"versions": "torch 2", "hardware": "2 cores"}, notes=[], explorer="explorer/index.html",
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
