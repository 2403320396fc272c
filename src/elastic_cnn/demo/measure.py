"""From trained networks to `Results`: answers, speed in the deployed form, conversion, scale policy."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elastic_cnn.conversion import Calibration, convert
from elastic_cnn.data.fast_pixels import normalise
from elastic_cnn.demo.data import DemoData
from elastic_cnn.demo.results import Converted, Policy, Speed, Trained
from elastic_cnn.fast import optimize_for_inference
from elastic_cnn.measure.correlations import spearman
from elastic_cnn.measure.medians import ratio_of
from elastic_cnn.measure.turns import in_turns, timer
from elastic_cnn.policy.embedding import MINIMUM, embed
from elastic_cnn.policy.scores import block_info, scale_policy
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.run_log import read_log
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.zoo.checkpoint import InputSpec

BATCH = 100
MOST_SHOWN = 1500  # images that t-SNE lays out
MOST_CALIBRATED = 512  # images that the conversion looks at


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, spec: InputSpec, console: Console) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers (N,) for images (N, 3, H, W) uint8, and the probability of each."""
    answers, confidence = [], []
    with console.bar("testing", len(images)) as bar:
        for batch in images.split(BATCH):
            best = network.eval()(_to_input(batch, spec)).softmax(dim=1).max(dim=1)
            answers.append(best.indices)
            confidence.append(best.values)
            bar.update(len(batch))
    return torch.cat(answers).numpy(), torch.cat(confidence).numpy()


def score(network: nn.Module, images: Tensor, spec: InputSpec, console: Console) -> np.ndarray:
    """Equation 5 for images (N, 3, H, W) uint8: (N, blocks) float32."""
    scores = []
    with console.bar("scale policy", len(images)) as bar:
        for batch in images.split(BATCH):
            scores.append(scale_policy(network, _to_input(batch, spec)))
            bar.update(len(batch))
    return torch.cat(scores).numpy()


def _to_input(images: Tensor, spec: InputSpec) -> Tensor:
    return normalise(images, spec.mean, spec.std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure_speed(networks: dict[str, nn.Module], image_size: int, batch: int = 64, rounds: int = 15) -> Speed:
    """Networks by name, the base first, as `optimize_for_inference` makes them; the networks take turns.

    They compute in bfloat16 where that is the faster for the base.
    """
    images = torch.rand(batch, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    forms: dict[str, Any] = {}
    dtype: Any = "auto"
    for name, network in networks.items():
        forms[name] = optimize_for_inference(network, images, dtype=dtype)
        if dtype == "auto":
            notes = forms[name].optimization_report.notes
            dtype = torch.bfloat16 if any(note.startswith("computes in bfloat16") for note in notes) else None

    def forward(network: nn.Module) -> Callable[[], object]:
        return lambda: [network(images) for _ in range(3)]

    times = in_turns([timer(forward(network)) for network in forms.values()], rounds, warm_up=2, reverse=True)
    by_name = dict(zip(forms, times, strict=True))
    base = times[0]
    threads = torch.get_num_threads()
    form = f"optimize_for_inference, {'bfloat16' if dtype is not None else 'float32'}, batches of {batch}"
    return Speed(
        f"{form}, {threads} thread{'s' if threads > 1 else ''}",
        batch,
        {name: 3 * batch / float(np.median(seconds)) for name, seconds in by_name.items()},
        {name: ratio_of(seconds, base) for name, seconds in by_name.items() if seconds is not base},
    )


def convert_base(
    base: nn.Module, data: DemoData, run: Trained, spec: InputSpec, console: Console
) -> tuple[nn.Module, Converted]:
    """The trained base made elastic on its own training images, and how its answers fare on the compared ones."""
    count = min(MOST_CALIBRATED, len(data.train))
    images = torch.stack([data.train[index]["image"] for index in range(count)])
    began = perf_counter()
    converted: Any = convert(base, images, calibration=Calibration(photos=count))
    seconds = perf_counter() - began
    answers, _ = predict(converted, data.images, spec, console)
    report = converted.conversion_report
    return converted, Converted(
        seed=run.seed,
        same=float((answers == run.predictions).mean()),
        base_error=run.error,
        error=float((answers != data.labels.numpy()).mean()),
        photos=report.photos,
        seconds=seconds,
        macs_ratio=report.macs_ratio,
        blocks=len(report.blocks),
    )


def describe_run(folder: Path, summary: Summary, predictions: np.ndarray, labels: np.ndarray) -> Trained:
    """What a training run and the tests after it found."""
    steps = summary.steps / summary.epochs
    losses = [(int(row["step"]) / steps, float(row["loss"])) for row in read_log(folder / "train.csv")]
    errors = [(float(row["epoch"]), float(row["top1_error"])) for row in read_log(folder / "val.csv")]
    wrong = float((predictions != labels).mean())
    return Trained(summary.seed, losses, errors, predictions, wrong, summary.seconds)


def analyse_policy(network: nn.Module, data: DemoData, spec: InputSpec, seed: int, console: Console) -> Policy:
    """The policy of all images, its correlation with their sizes, and its t-SNE map. `ValueError`: too few images."""
    if len(data.images) < MINIMUM:
        raise ValueError(f"the scale policy is shown for at least {MINIMUM} validation images, got {len(data.images)}")
    scores = score(network, data.images, spec, console)
    blocks = block_info(network, _to_input(data.images[:1], spec))
    correlations = None if data.sizes is None else [spearman(data.sizes, column) for column in scores.T]
    shown = np.arange(len(scores))
    if len(shown) > MOST_SHOWN:
        shown = np.sort(np.random.default_rng(seed).choice(shown, MOST_SHOWN, replace=False))
    return Policy(blocks, scores, correlations, shown, embed(scores[shown], seed=seed, standardise=True))
