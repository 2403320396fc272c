"""The demo from data to report."""

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from elastic_cnn.analysis.complexity import count
from elastic_cnn.demo import measure
from elastic_cnn.demo.data import DemoData, load_digits, load_photos
from elastic_cnn.demo.explore import write_explorer
from elastic_cnn.demo.plan import Pace, Plan, fit
from elastic_cnn.demo.report import render, sentences, terminal_table
from elastic_cnn.demo.results import NetworkResult, Results, divide_by_size
from elastic_cnn.demo.workers import Task, Workers
from elastic_cnn.files import refuse_to_overwrite, refuse_unwritable_folder, write_json, write_text
from elastic_cnn.measure import machine
from elastic_cnn.nn import channels_last
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.tasks.training import load_recipe, make_input_spec
from elastic_cnn.zoo import load_checkpoint
from elastic_cnn.zoo.checkpoint import InputSpec

NETWORKS = {"resnext_small": "ResNeXt small", "resnext_small_elastic": "ResNeXt small + Elastic"}
RECIPE = "digits_thin"
FOR_PHOTOS = ("image_size=64", "optimizer.lr=0.001")  # larger than digits need, and the rate of the photo studies
MINUTES = 8.0


@dataclass(frozen=True)
class Choices:
    """What the command line asks for; None leaves it to the machine's pace within `minutes`.

    processes: how many runs are trained at a time, 0 to train in this process; by default one a processor.
    """

    seed: int = 0
    seeds: int | None = None
    quick: bool = False
    data: str | Path | None = None
    epochs: int | None = None
    images: int | None = None
    minutes: float = MINUTES
    processes: int | None = None


def run_demo(
    out: str | Path,
    choices: Choices = Choices(),
    *,
    overwrite: bool = False,
    progress: bool | None = None,
    command: str = "elastic demo",
) -> Results:
    """Train both small networks under several seeds, compare and convert them, and write into the folder `out`:
    report.html, explorer/, results.json, policy.parquet and the runs.

    Raises `ValueError` where `out` holds something (without `overwrite`), a number makes no sense or the photos do not
    serve. Processes are started anew, so that a script that calls this needs `if __name__ == "__main__"`.
    """
    began, out, console = time.perf_counter(), Path(out), Console(progress)
    recipe = load_recipe(RECIPE, [f"seed={choices.seed}", *(FOR_PHOTOS if choices.data is not None else ())])
    plan = Plan.make(choices.quick, choices.epochs, choices.images, choices.seeds, recipe.batch_size)
    if not 0 < choices.minutes <= 24 * 60:
        raise ValueError(f"--minutes {choices.minutes:g} must be more than 0, and at most a day")
    if not overwrite:
        refuse_to_overwrite(out, "choose another folder with -o, or pass --overwrite")
    refuse_unwritable_folder(out)
    spec = make_input_spec(recipe)
    material = _load(plan, choices.data, recipe, spec, console)
    images = len(material.train)
    if images < recipe.batch_size:
        raise ValueError(
            f"{material.name} has {images} images to train on, one batch takes {recipe.batch_size}: add photos"
        )
    console.line(f"data: {material.name}, {images:,} images to train on, {len(material.labels):,} to compare on")
    number = machine.cores() if choices.processes is None else choices.processes
    with Workers(material, number) as workers:
        plan, recipe = _fit(replace(plan, images=images), recipe, workers, choices, console)
        summaries = _train(workers, plan, recipe, out, overwrite, console)
    results = _compare(material, recipe, summaries, spec, out, console, command, began)
    write_text(out / "report.html", render(results))
    write_json(out / "results.json", results.to_json())
    console.line(f"\n{terminal_table(results)}\n")
    for sentence in sentences(results):
        console.line(sentence)
    return results


def _load(plan: Plan, folder: str | Path | None, recipe: Recipe, spec: InputSpec, console: Console) -> DemoData:
    size, seed = recipe.side, recipe.seed
    if folder is not None:
        return load_photos(folder, plan.images, plan.tested, size, seed, spec, console)
    return load_digits(plan.images, plan.watched, plan.tested, size, seed, spec, console)


def _fit(plan: Plan, recipe: Recipe, workers: Workers, choices: Choices, console: Console) -> tuple[Plan, Recipe]:
    """As many seeds as the machine trains in the time, in the precision that is faster here."""
    fixed = plan.seeds is not None and plan.epochs is not None
    pace = Pace(0.0, recipe.precision) if fixed else workers.pace(list(NETWORKS), recipe)
    plan = fit(plan, pace, choices.minutes, max(1, workers.number))
    recipe = replace(recipe, epochs=plan.epochs_for(plan.images), precision=pace.precision)
    console.line(
        f"training {len(NETWORKS)} networks under {plan.seeds} seeds each, {recipe.epochs} epochs, "
        f"in {recipe.precision}, {max(1, workers.number)} at a time"
    )
    return plan, recipe


def _train(
    workers: Workers, plan: Plan, recipe: Recipe, out: Path, overwrite: bool, console: Console
) -> dict[str, list[Summary]]:
    """{network: a summary a seed}. The runs of one seed follow each other, the slower network first."""
    seeds = range(recipe.seed, recipe.seed + int(plan.seeds or 1))
    tasks = [
        Task(replace(recipe, network=name, seed=seed), _folder(out, name, seed), overwrite)
        for seed in seeds
        for name in reversed(NETWORKS)
    ]

    def done(place: int, summary: Summary) -> None:
        title = NETWORKS[summary.network]
        console.line(f"{title}, seed {summary.seed}: trained in {summary.seconds:.0f} s")

    found: dict[str, list[Summary]] = {name: [] for name in NETWORKS}
    for summary in workers.train(tasks, done):
        found[summary.network].append(summary)
    return found


def _folder(out: Path, network: str, seed: int) -> Path:
    return out / "runs" / f"{network}-seed{seed}"


def _compare(
    data: DemoData, recipe: Recipe, summaries: dict[str, list[Summary]], spec: InputSpec, out: Path, console: Console,
    command: str, began: float,
) -> Results:  # fmt: skip
    labels = data.labels.numpy()
    first: dict[str, tuple[nn.Module, Any]] = {}  # the networks of the first seed, and their answers
    found = []
    for name, runs in summaries.items():
        trained = []
        for summary in runs:
            folder = _folder(out, name, summary.seed)
            network = channels_last(load_checkpoint(folder / "last.safetensors")[0]).eval()
            answers = measure.predict(network, data.images, spec, console)
            trained.append(measure.describe_run(folder, summary, answers[0], labels))
            first.setdefault(name, (network, answers))
        cost = count(first[name][0], (3, *data.images.shape[-2:]))
        found.append(NetworkResult(name, NETWORKS[name], cost.parameters, cost.macs, trained))
    base, elastic = found
    base_wrong, elastic_wrong = ([run.predictions != labels for run in result.runs] for result in found)
    console.line("converting the trained base")
    networks = [first[name][0] for name in NETWORKS]
    converted, outcome = measure.convert_base(networks[0], data, base.runs[0], spec, console)
    console.line("timing")
    speed = measure.measure_speed({"base": networks[0], "elastic": networks[1], "converted": converted}, recipe.side)
    console.line("asking the Elastic network for its scale policy")
    policy = measure.analyse_policy(networks[1], data, spec, recipe.seed, console)
    base_answers, elastic_answers = (first[name][1] for name in NETWORKS)
    explorer = write_explorer(out, data, policy, elastic_answers, base_answers, (elastic.network, base.network))
    return Results(
        kind=data.kind, name=data.name, classes=data.classes, images=data.images.numpy(), labels=labels,
        sizes=data.sizes, base=base, elastic=elastic,
        bins=[] if data.sizes is None else divide_by_size(data.sizes, base_wrong, elastic_wrong),
        speed=speed, converted=outcome, policy=policy, train_images=len(data.train), epochs=recipe.epochs,
        image_size=recipe.side, precision=recipe.precision, seed=recipe.seed, command=command,
        seconds=time.perf_counter() - began, machine=describe_machine(), notes=data.notes, explorer=explorer,
    )  # fmt: skip


def describe_machine() -> dict[str, str]:
    """Versions and hardware, for a reader who wants the same numbers."""
    threads = f"{torch.get_num_threads()} threads, {platform.system()} {platform.machine()}"
    hardware = f"{machine.processor()}, {machine.cores()} cores, {threads}"
    return {"versions": machine.versions_line("numpy"), "hardware": hardware}
