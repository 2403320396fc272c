"""Training and testing: one engine for every job.

The engine (Lightning Fabric and a loop of our own, `loop.py`) knows no architecture and no task. Why not Lightning's
Trainer: after a kill in mid-epoch it replays or skips samples; here a resumed run equals an unbroken one to the bit.

What a task (a `TaskSpec` of `tasks/spec.py`; the built-in ones' code lies in `tasks/NAME.py`) provides:

1. `Options`: a frozen dataclass, the recipe's section `options:` (strict keys and types; `Options()` must work).
   Raise `ValueError` in `__post_init__` for values that make no sense.

2. `build(recipe: Recipe, data: str, settings: Settings) -> Job`: opens the data and makes the network:
   - datasets are map-style (`Samples` in `data/sampler.py`): `len(d)`, `d[i] -> dict` with `"image"`: float tensor
     `(3, H, W)` and whatever the task needs (tensors or numbers; names free, `"index"` and `"unreadable"` are taken),
     `d.path(i) -> str` (for messages). Random augmentation simply uses the global random, numpy and torch generators:
     they are seeded from (seed, epoch, index) before each sample, so results do not depend on workers or on a resume.
     A broken file raises `UnreadableSample(path, reason)` (`data/sampler.py`): it is left out with one warning and
     counted, an error under `--strict`.
   - the network: `make_network(recipe, classes, crop_mode="squash", ...)` (below; keywords are fields of `InputSpec`)
     creates it by name, initialises it, loads `recipe.weights` into what fits (head new; prints what did not load),
     makes it elastic where `recipe.elastic`, and returns the network and its `NetworkCard`.

3. `class SomeTask(Task)` (`tasks/task.py`; a LightningModule with `.network`), usually:
       training_step(batch, batch_idx) -> loss ()      batch: the samples' dict, collated, on the device
       validation_step(batch, batch_idx) -> None       updates metrics (torchmetrics in `self.metrics`, integer counts)
       validation_results() -> dict[str, float]        over all processes, resets; plain numbers or lists of numbers
       metric = "top1", maximise = True                which result decides what is `best`
       parameter_groups() -> list[ParameterGroup]      optional: learning-rate and weight-decay factors by part
       save_pictures(folder, epoch) -> list[Path]      optional: after each validation, on the first process
       headline(results) -> str                        optional: the line printed after each validation, and
       told = ("top1",)                                which results it tells
   The loop calls `network.train()` / `.eval()`; override `train(mode)` to freeze batch norms. Nothing may depend on
   state outside `state_dict()`: global generators are reseeded from (seed, step) before each training step.

4. `build_test(network, card, data: str, split: str, options: TestOptions) -> (Task, Samples)`: for `elastic eval`.
   Refuse data whose classes differ from `card.classes`, naming them.

What the engine offers:

    train(recipe, data, out, settings=Settings(), build=None) -> Summary   everything: out/best.safetensors,
        last.safetensors, last.ckpt, recipe.yaml, train.csv, val.csv, summary.json, tensorboard/, pictures/
    evaluate(checkpoint, data, split="val", ...) -> dict                        the task's results, images, images_per_s
    load_recipe(name_or_path, ["epochs=2", "optimizer.lr=0.01", "options.mixup=0"]) -> Recipe   (recipe.py)
    make_network(recipe, classes) -> (network, card)
    make_input_spec(recipe) -> InputSpec

Recipe keys (recipe.py has them all): task, network, network_kwargs, elastic, init, weights, image_size, epochs,
batch_size (images an optimizer step, over all devices), accumulate, optimizer {name, lr, momentum, ...},
schedule {name: constant|step|cosine|poly, ...}, ema, clip_grad, precision, channels_last, compile, seed, options.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric

from elastic_cnn.data.sampler import TestBatches, make_loader
from elastic_cnn.files import write_json
from elastic_cnn.nn.compare import require_finite
from elastic_cnn.tasks import failures
from elastic_cnn.tasks.console import Console, Unreadable
from elastic_cnn.tasks.curves import draw_curves
from elastic_cnn.tasks.elastic_start import recipe_of_the_start
from elastic_cnn.tasks.interrupts import Interrupted, Interrupts
from elastic_cnn.tasks.loop import Loop, NonFiniteLoss
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.restarts import advice, join_attempt
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import Settings, TestOptions, default_workers, launched
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.tasks.strict import Refused
from elastic_cnn.tasks.summary import Summary, summarise
from elastic_cnn.tasks.task import Job, ParameterGroup, Task
from elastic_cnn.tasks.views import Views
from elastic_cnn.tasks.weights import load_weights, make_input_spec, make_network
from elastic_cnn.text import listed
from elastic_cnn.zoo.checkpoint import load_checkpoint

__all__ = [
    "Interrupted", "Job", "NonFiniteLoss", "ParameterGroup", "Settings", "Summary", "Task", "TestOptions",
    "default_workers", "evaluate", "load_recipe", "load_weights", "make_input_spec", "make_network", "train",
]  # fmt: skip

DEFAULT_SETTINGS, DEFAULT_TEST = Settings(), TestOptions()
PRECISIONS = {"fp32": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    settings: Settings = DEFAULT_SETTINGS,
    build: Callable[[Recipe, str, Settings], Job] | None = None,
    console: Console | None = None,
) -> Summary:
    """Train by `recipe` on `data`, write everything into the folder `out`, return the summary.

    build: makes the run's data, network and task, by default as the recipe's task does. With several devices every
    process calls this with the same arguments (the command line and torchrun do so); Fabric starts those that are
    missing.

    Raises `ValueError` for bad data, a folder that holds a run or in which another process trains, a state of other
    data, out of memory (says what to lower) and a loss that is not finite (`NonFiniteLoss`); `Interrupted` where a
    signal ended the run and its state was saved.
    """
    folder = RunFolder(out)
    fabric = make_fabric(recipe, settings)
    console = console or Console(settings.progress)
    console.shown = fabric.is_global_zero
    if restarts := advice():
        console.warn(restarts)
    if fabric.is_global_zero:
        folder.refuse_taken(settings.resume, settings.overwrite)
    start = recipe_of_the_start(recipe, folder, settings)
    job = (build or task_spec(recipe.task).code("build"))(start, str(data), settings)
    for samples in (job.train, job.val):
        console.tell_found(samples)
    if settings.find_rate:
        recipe = _with_found_rate(job, recipe, settings, folder, console)
    loop = Loop(fabric, job, recipe, settings, folder)
    with folder.exclusive() if fabric.is_global_zero else nullcontext():
        files: dict[str, Callable[[Path], object]] = {
            "data.json": lambda path: write_json(path, {"data": _place(data)}),
            **job.files,
        }
        if fabric.is_global_zero:
            folder.prepare(recipe, settings.resume, settings.overwrite, files, settings.extend)
        fabric.barrier()
        interrupts = Interrupts()
        try:
            with interrupts.caught(), failures.readers_told_once():
                loop.run(console, interrupts)
        except (MemoryError, RuntimeError, ValueError, EOFError, OSError) as error:
            if (reason := failures.explain(error, recipe, fabric.world_size)) is None:
                raise
            raise reason from error
        unreadable = loop.unreadable_files()
        _tell_classes_not_learnt(job, unreadable, console)
        summary = summarise(loop, len(unreadable))
        if fabric.is_global_zero:
            for name in {"data.json", "split.csv"} & set(files):  # those of other data that the run was let go on with
                files[name](folder.path / name)
            drawn = draw_curves(folder.path, summary.metric, summary.best_epoch)
            if drawn is not None:
                summary.files["curves.png"] = str(drawn)
            write_json(folder.summary_json, asdict(summary))
        fabric.barrier()
    return summary


def _place(data: str | Path) -> str:
    """Data by a name that holds in every working folder."""
    return os.path.abspath(data) if os.path.exists(data) else str(data)


def _with_found_rate(job: Job, recipe: Recipe, settings: Settings, folder: RunFolder, console: Console) -> Recipe:
    """The recipe with the rate of a range test; of a run that goes on, with the rate that it began with."""
    if settings.resume and folder.recipe_yaml.is_file():
        return replace(recipe, optimizer=replace(recipe.optimizer, lr=folder.recipe().optimizer.lr))
    from elastic_cnn.tasks.find_rate import with_found_rate

    return with_found_rate(job, recipe, settings, console)


def make_fabric(recipe: Recipe, settings: Settings) -> Fabric:
    """A launched Fabric. Under torchrun or SLURM its processes are those that they started, whatever `devices` says.

    Raises `ValueError` where the machine has no such devices, for strategies that divide the weights, and for a
    precision that they do not have.
    """
    if any(word in settings.strategy for word in ("fsdp", "deepspeed", "model_parallel")):
        raise ValueError(
            f"strategy {settings.strategy!r} divides the weights over processes; these networks fit on one: use ddp"
        )
    on_cpu = settings.accelerator == "cpu" or (settings.accelerator == "auto" and not torch.accelerator.is_available())
    if recipe.precision == "16-mixed" and on_cpu:  # Lightning would compute in bf16
        text = "precision=16-mixed is for GPUs, this run is on the CPU: take precision=bf16-mixed or fp32"
        raise Refused(text, "precision")
    devices, nodes = launched() or (settings.devices, settings.nodes)
    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=settings.strategy,
            precision=PRECISIONS[recipe.precision],  # type: ignore[arg-type]
        )
    except Exception as error:  # Lightning raises its own kinds for devices that are not there
        raise ValueError(f"cannot run on {devices} x {settings.accelerator}: {error}") from error
    join_attempt(fabric)
    fabric.launch()
    return fabric


def _tell_classes_not_learnt(job: Job, unreadable: set[str], console: Console) -> None:
    find = getattr(job.train, "classes_without", None)
    if find is not None and (names := find(unreadable)):
        console.warn(f"no photo to train on of {listed(names)} could be read: nothing of it was learnt")


def _sum(fabric: Fabric, number: int) -> int:
    """Over all processes."""
    return int(torch.as_tensor(fabric.all_reduce(torch.tensor(number, device=fabric.device), reduce_op="sum")))


def evaluate(
    checkpoint: str | Path,
    data: str | Path,
    split: str = "val",
    options: TestOptions = DEFAULT_TEST,
    settings: Settings = DEFAULT_SETTINGS,
    console: Console | None = None,
    observe: Callable[[str, Any, dict[str, Any], Any], None] | None = None,
) -> dict[str, Any]:
    """Test a checkpoint (or a run folder's best) on a split of `data`.

    observe: told the task's name, the split's samples, and of each batch the batch and what the network said.
    Returns the task's results with `network`, `task`, `headline` (the line that training prints of the same results),
    `told` (the keys of the results that it tells),
    `precision` (of this test) and `trained_in` (that of the validations in training), `images` (counted), `unreadable`,
    `classes` (their number), `images_per_s` and `seconds`. `ValueError` where the checkpoint or the data do not fit.
    """
    network, card = load_checkpoint(checkpoint)
    spec = task_spec(card.task)
    if (options.annotations or options.images) and not spec.places:
        raise ValueError(f"--annotations and --images are for multi-label data; this checkpoint is for {card.task}")
    fabric = make_fabric(Recipe(), settings)
    console = console or Console(settings.progress)
    console.shown = fabric.is_global_zero
    network = Views(network, card, options.tta) if options.tta else network
    task, samples = spec.code("build_test")(network, card, str(data), split, options)
    console.tell_found(samples)
    task.to(fabric.device).eval()
    batches = TestBatches(len(samples), options.batch_size, fabric.global_rank, fabric.world_size)
    loader = make_loader(samples, batches, seed=0, workers=settings.workers)
    said: list[Any] = []

    def note(module: Any, args: Any, output: Any) -> None:
        require_finite(output, checkpoint)
        said[:] = [output]

    network.register_forward_hook(note)
    unreadable, began = Unreadable(options.strict), time.perf_counter()
    with console.bar("test", len(samples)) as bar, torch.no_grad():
        for number, part in enumerate(loader):
            broken = unreadable.take(part, console)
            if "image" in part:
                task.validation_step(fabric.to_device(part), number)
                if observe is not None:
                    observe(card.task, samples, part, said.pop())
            bar.update((broken + len(part.get("image", ()))) * fabric.world_size)
    broken_files = _sum(fabric, len(unreadable.paths))  # each file is read by one process
    if broken_files >= len(samples):
        raise ValueError(f"no photo of {data} ({split}) could be read")
    results = task.validation_results()
    seconds = time.perf_counter() - began
    recipe = card.info.get("recipe")
    return {
        "network": card.network,
        "task": card.task,
        "headline": task.headline(results),
        "told": task.told_by_headline(results),
        "precision": "fp32",
        "trained_in": recipe.get("precision", "fp32") if isinstance(recipe, dict) else "fp32",
        **results,
        "images": len(samples) - broken_files,
        "unreadable": broken_files,
        "classes": len(card.classes),
        "images_per_s": round(len(samples) / seconds, 1),
        "seconds": round(seconds, 1),
    }
