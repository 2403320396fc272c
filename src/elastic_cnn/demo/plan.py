"""How much of everything the demo does: as the command line asks, and else as much as the machine can in the time."""

import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn import functional

from elastic_cnn.measure.machine import VECTORS, describe_machine
from elastic_cnn.nn import channels_last
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.zoo import create_model

VIEWS = 16_000  # images, repeats included, of a run: where the digits study finds networks well apart (studies/budget)
QUICK_VIEWS = 2_500
MOST_EPOCHS = 30
FEWEST_SEEDS, MOST_SEEDS = 3, 8  # an interval over fewer than three seeds decides nothing
SHARE = 0.5  # of the minutes that is for training; the rest draws, tests, converts, times and writes
STEPS = 4
GAIN = 1.1  # how much faster bfloat16 has to train to be taken


@dataclass(frozen=True)
class Plan:
    """images: to train on. tested: images to compare the networks on. watched: those of them that are tested after each
    epoch. epochs: None to take as many as fit `views`. seeds: runs of each network, None for as many as fit."""

    images: int = 4_000
    tested: int = 2_000
    watched: int = 1_000
    epochs: int | None = None
    views: int = VIEWS
    seeds: int | None = None

    @classmethod
    def make(
        cls, quick: bool, epochs: int | None, images: int | None, seeds: int | None, batch_size: int
    ) -> "Plan":  # fmt: skip
        """From the command line's choices. `ValueError` where a number is too small to train on."""
        plan = cls(1_250, 800, 400, None, QUICK_VIEWS, 3) if quick else cls()
        if images is not None:
            if images < batch_size:
                raise ValueError(
                    f"--images {images} is less than one batch of {batch_size}: ask for at least {batch_size}"
                )
            plan = replace(plan, images=images, tested=max(48, images // 3), watched=max(48, images // 12))
        for name, value in (("epochs", epochs), ("seeds", seeds)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        return replace(plan, epochs=epochs, seeds=seeds if seeds is not None else plan.seeds)

    def epochs_for(self, images: int) -> int:
        """Epochs over so many images: as asked for, or as many as fit the number of views."""
        return self.epochs or max(1, min(MOST_EPOCHS, self.views // images))


@dataclass(frozen=True)
class Pace:
    """Seconds that one image takes in training, all networks together, in the precision that was faster."""

    seconds: float
    precision: Literal["fp32", "bf16-mixed", "16-mixed"]


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16."""
    return any(name in describe_machine()["vectors"] for name in VECTORS if name.endswith("bf16"))


def measure_pace(networks: list[str], recipe: Recipe) -> Pace:
    """Train each network for a few steps on random images, in float32 and, where the processor has it, in bfloat16."""
    single = sum(_seconds_a_step(network, recipe, "fp32") for network in networks)
    if has_bfloat16():
        half = sum(_seconds_a_step(network, recipe, "bf16-mixed") for network in networks)
        if single > GAIN * half:
            return Pace(half / recipe.batch_size, "bf16-mixed")
    return Pace(single / recipe.batch_size, "fp32")


def _seconds_a_step(name: str, recipe: Recipe, precision: str) -> float:
    network = channels_last(create_model(name, num_classes=10, **recipe.network_kwargs))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.001)
    images = torch.rand(recipe.batch_size, 3, *recipe.size).contiguous(memory_format=torch.channels_last)
    targets, times = torch.zeros(recipe.batch_size, dtype=torch.long), []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            loss = functional.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return sum(times[1:]) / STEPS


def fit(plan: Plan, pace: Pace, minutes: float, workers: int) -> Plan:
    """The plan with as many seeds as the minutes allow, and fewer views where even three seeds do not fit."""
    if plan.seeds is not None:
        return plan
    available = SHARE * 60 * minutes * workers
    views = plan.images * plan.epochs_for(plan.images)
    seeds = int(available / (views * pace.seconds))
    seeds = min(MOST_SEEDS, max(FEWEST_SEEDS, seeds))
    if plan.epochs is None and seeds * views * pace.seconds > available:
        plan = replace(plan, views=max(plan.images, int(available / (seeds * pace.seconds))))
    return replace(plan, seeds=seeds)
