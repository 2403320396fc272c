"""The demo from data to report."""

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from elastic_cnn.demo import measure
from elastic_cnn.demo.data import DemoData, load_digits, load_photos
from elastic_cnn.demo.job import DemoJob
from elastic_cnn.demo.report import render, terminal_table, verdict
from elastic_cnn.demo.results import NetworkResult, Results
from elastic_cnn.files import refuse_to_overwrite, write_json, write_text
from elastic_cnn.measure import machine
from elastic_cnn.measure.proportions import Difference, Proportion
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.training import Settings, Summary, load_recipe, make_input_spec, train
from elastic_cnn.zoo import load_checkpoint
from elastic_cnn.zoo.checkpoint import InputSpec

NETWORKS = {"resnext_small": "ResNeXt small", "resnext_small_elastic": "ResNeXt small + Elastic"}
RECIPE = "digits_demo"
VIEWS = 48_000  # images, repeats included, that each network is trained on: what fits the time of a full demo
QUICK_VIEWS = 5_000
MOST_EPOCHS = 30


@dataclass(frozen=True)
class Plan:
    """How much of everything. images: to train on; tested: images to compare the networks on; watched: those of them
    that are tested after each epoch (digits; all for photos). epochs: None to take as many as fit `views`."""

    images: int = 12_000
    tested: int = 4_000
    watched: int = 1_000
    epochs: int | None = None
    views: int = VIEWS

    @classmethod
    def make(cls, quick: bool, epochs: int | None, images: int | None, batch_size: int) -> "Plan":
        """From the command line's choices. `ValueError` where a number is too small to train on."""
        plan = cls(2_500, 800, 400, None, QUICK_VIEWS) if quick else cls()
        if images is not None:
            if images < batch_size:
                raise ValueError(
                    f"--images {images} is less than one batch of {batch_size}: ask for at least {batch_size}"
                )
            plan = replace(plan, images=images, tested=max(48, images // 3), watched=max(48, images // 12))
        if epochs is not None and epochs < 1:
            raise ValueError(f"--epochs must be at least 1, got {epochs}")
        return replace(plan, epochs=epochs)

    def epochs_for(self, images: int) -> int:
        """Epochs over so many images: as asked for, or as many as fit the number of views."""
        return self.epochs or max(1, min(MOST_EPOCHS, self.views // images))


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    quick: bool = False,
    data: str | Path | None = None,
    epochs: int | None = None,
    images: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    command: str = "elastic demo",
) -> Results:
    """Train both small networks, compare them, and write into the folder `out`: report.html, results.json, both runs.

    data: a folder of photos (train/CLASS, val/CLASS) in place of the digits. quick: about a minute, for a look.
    Raises `ValueError` where `out` holds something (without `overwrite`), a number makes no sense or the photos do not
    serve.
    """
    began, out, console = time.perf_counter(), Path(out), Console(progress)
    recipe = load_recipe(RECIPE, [f"seed={seed}"])
    plan = Plan.make(quick, epochs, images, recipe.batch_size)
    if not overwrite:
        refuse_to_overwrite(out, "choose another folder with -o, or pass --overwrite")
    spec = make_input_spec(recipe)
    material = _load(plan, data, recipe, spec, console)
    count = len(material.train)
    if count < recipe.batch_size:
        raise ValueError(
            f"{material.name} has {count} images to train on, one batch takes {recipe.batch_size}: add photos"
        )
    recipe = replace(recipe, epochs=plan.epochs_for(count))
    console.line(f"data: {material.name}, {count:,} images to train on, {len(material.labels):,} to compare on")
    summaries = [
        _train(number, name, material, replace(recipe, network=name), out, overwrite, progress, console)
        for number, name in enumerate(NETWORKS, start=1)
    ]
    results = _compare(material, recipe, summaries, spec, out, console, command, began)
    write_text(out / "report.html", render(results))
    write_json(out / "results.json", results.to_json())
    console.line(f"\n{terminal_table(results)}\n\n{verdict(results)}")
    return results


def _load(plan: Plan, folder: str | Path | None, recipe: Recipe, spec: InputSpec, console: Console) -> DemoData:
    size, seed = recipe.side, recipe.seed
    if folder is not None:
        return load_photos(folder, plan.images, plan.tested, size, seed, spec, console)
    return load_digits(plan.images, plan.watched, plan.tested, size, seed, spec, console)


def _train(
    number: int, name: str, data: DemoData, recipe: Recipe, out: Path, overwrite: bool, progress: bool | None,
    console: Console,
) -> Summary:  # fmt: skip
    console.line(f"training {NETWORKS[name]} ({number} of {len(NETWORKS)})")
    settings = Settings(accelerator="cpu", overwrite=overwrite, progress=progress)
    summary = train(recipe, data.name, out / name, settings, build=DemoJob(data).build, console=console)
    console.line(f"trained in {summary.seconds:.0f} s ({summary.images_per_s:.0f} images/s)")
    return summary


def _compare(
    data: DemoData, recipe: Recipe, summaries: list[Summary], spec: InputSpec, out: Path, console: Console,
    command: str, began: float,
) -> Results:  # fmt: skip
    networks = [load_checkpoint(out / name / "last.safetensors")[0] for name in NETWORKS]
    networks = [network.to(memory_format=torch.channels_last) for network in networks]
    rates = measure.measure_speed(networks, recipe.side)
    found: list[NetworkResult] = []
    for network, summary, rate in zip(networks, summaries, rates, strict=True):
        name = summary.network
        answers = measure.predict(network, data.images, spec, console)
        found.append(measure.describe_run(network, NETWORKS[name], out / name, summary, rate, data, answers))
    base, elastic = found
    labels = data.labels.numpy()
    wrong = [result.predictions != labels for result in found]
    console.line("asking the Elastic network for its scale policy")
    policy = measure.analyse_policy(networks[1], data, spec, recipe.seed, console)
    return Results(
        kind=data.kind, name=data.name, classes=data.classes, images=data.images.numpy(), labels=labels,
        sizes=data.sizes, base=base, elastic=elastic,
        base_error=Proportion.of(wrong[0]), elastic_error=Proportion.of(wrong[1]),
        difference=Difference.of(~wrong[0], ~wrong[1]),
        bins=[] if data.sizes is None else measure.divide_by_size(data.sizes, *wrong),
        policy=policy, train_images=len(data.train), epochs=recipe.epochs, image_size=recipe.side,
        seed=recipe.seed, command=command, seconds=time.perf_counter() - began, machine=describe_machine(),
        notes=data.notes,
    )  # fmt: skip


def describe_machine() -> dict[str, str]:
    """Versions and hardware, for a reader who wants the same numbers."""
    threads = f"{torch.get_num_threads()} threads, {platform.system()} {platform.machine()}"
    hardware = f"{machine.processor()}, {machine.cores()} cores, {threads}"
    return {"versions": machine.versions_line("numpy"), "hardware": hardware}
