"""Running a study: what is missing, one run at a time in each process, each run by one process alone."""

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.hints import did_you_mean
from elastic_cnn.measure import machine
from elastic_cnn.nn import channels_last
from elastic_cnn.nn.complexity import count
from elastic_cnn.study import results
from elastic_cnn.study.grid import SOURCES, Run, Study, load_study
from elastic_cnn.study.job import StoreShelf, StudyJob
from elastic_cnn.study.learned_shares import learn_shares
from elastic_cnn.study.measures import BATCH, POLICY_IMAGES, images_of, measure, stress_stores
from elastic_cnn.study.timing import equal_time_views, measure_step_times
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_log import read_log
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.summary import Summary
from elastic_cnn.tasks.training import train
from elastic_cnn.tasks.weights import make_network
from elastic_cnn.zoo.checkpoint import load_checkpoint

WEIGHTS = "last.safetensors"
STATES = ("last.ckpt", "previous.ckpt")  # of a run that was interrupted
NOT_KEPT = (*STATES, "best.safetensors", "tensorboard")
POLL_S = 2.0
CURVE_POINTS = 40


class UnknownMetric(ValueError):
    """The study's metric is none of those that a finished run has."""


@dataclass(frozen=True)
class Storage:
    """results: the small records, kept. work: run folders with weights and states. data: the root of the photos.

    accelerator: `auto`, `cpu` or `gpu`. only: networks to run, all by default. overwrite: run again what was run with
    another configuration.
    """

    results: Path
    work: Path
    data: str = "."
    accelerator: str = "auto"
    overwrite: bool = False
    progress: bool | None = None
    only: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """What runs compute on."""
        gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if gpu else "cpu")


def all_runs(studies: Sequence[Study], only: Sequence[str] = ()) -> list[Run]:
    """The runs of all studies, first those of every study's first seed, so that all are of use when cut short.

    only: names of networks to take. `ValueError` where no study has one of them, or two studies have one name.
    """
    names = [study.name for study in studies]
    for study in studies:
        if names.count(study.name) > 1:
            raise ValueError(f"{study.path}: two studies have the name {study.name}, and would share their records")
    known = [name for study in studies for name in study.networks]
    for name in only:
        if name not in known:
            raise ValueError(f"no study has a network {name!r}{did_you_mean(name, known, otherwise_all=True)}")
    ranked = [
        (study.seeds.index(run.seed), run)
        for study in studies
        for run in study.runs()
        if not only or run.network in only
    ]
    return [run for _, run in sorted(ranked, key=lambda entry: entry[0])]


def is_done(run: Run, storage: Storage) -> bool:
    """Whether the run's record is there and of the run's configuration.

    `ValueError` where it is of another one, unless `storage.overwrite`.
    """
    path = results.record_path(storage.results, run)
    if not path.exists():
        return False
    record = results.read_record(path)
    try:
        views = equal_time_views(run, storage.results)
    except LookupError:
        views = record.views  # the times of another machine: the record stands
    if record.key == results.key_of(results.config_of(run, views)):
        return True
    if storage.overwrite:
        return False
    raise ValueError(
        f"{path} is of another configuration than {run.study.path} describes now: --overwrite runs it again, or give "
        "the changed study another name"
    )


def run_missing(studies: Sequence[Study], storage: Storage, console: Console | None = None) -> list[str]:
    """Run all that is missing and nobody else is running; returns a line for each run that failed.

    Waits for runs of other processes, so that afterwards everything is done or has failed. A run that was interrupted
    goes on where it was. Raises `Interrupted` on SIGINT and SIGTERM, `ValueError` where a run's initial weights are
    missing and no process makes them.
    """
    console, shelf = console or Console(storage.progress), StoreShelf(storage.data)
    pending, failed = all_runs(studies, storage.only), []
    total = len(pending)
    pending = [run for run in pending if not is_done(run, storage)]
    console.line(f"{total - len(pending)} of {total} runs are done")
    while pending:
        outcome = "blocked"
        for run in list(pending):
            if is_done(run, storage):
                pending.remove(run)
                outcome = "moved"
                break
            if _missing_weights(run, storage):
                continue
            with _lock(run, run.name, storage, wait=False) as mine:
                if not mine:
                    outcome = "waiting"
                    continue
                if is_done(run, storage):
                    continue
                pending.remove(run)
                outcome = "moved"
                try:
                    execute(run, storage, shelf, console)
                except UnknownMetric:
                    raise  # every run would fail of it
                except ValueError as error:
                    failed.append(f"{run.study.name}/{run.name}: {error}")
                    console.warn(failed[-1])
                break
        if outcome == "waiting":
            time.sleep(POLL_S)
        elif outcome == "blocked" and (missing := _missing_weights(pending[0], storage)):
            raise ValueError(
                f"{pending[0].study.name}/{pending[0].name} needs {missing[0]}, whose weights are not in "
                f"{storage.work}: run that study first, or remove its records so that it runs again"
            )
    return failed


@contextmanager
def _lock(run: Run, what: str, storage: Storage, wait: bool) -> Iterator[bool]:
    """Whether this process may do `what` of the run's study, which one does at a time; `wait`: until it may.

    The system frees the lock of a process that ends in whatever way.
    """
    path = storage.work / run.study.name / f"{what}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def source_runs(run: Run) -> dict[str, Run]:
    """The runs whose weights this one needs, by the key of `SOURCES` that names them. `ValueError`, with the key, where
    the study or network is unknown."""
    found: dict[str, Run] = {}
    for key in SOURCES:
        name = getattr(run.entry, key)
        try:
            found |= {} if name is None else {key: _named_run(run, name)}
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return found


def _named_run(run: Run, name: str) -> Run:
    if "/" not in name:
        return run.sibling(name)
    other, _, network = name.partition("/")
    study = load_study(Path(run.study.path).parent / f"{other}.yaml")
    if network not in study.networks or run.seed not in study.seeds:
        raise ValueError(f"{run.study.path}: {other} has no network {network!r} with the seed {run.seed}")
    return Run(study, network, next(iter(study.recipes)), next(iter(study.data_sets)), run.seed)


def _weights_file(run: Run, storage: Storage) -> Path:
    """Its own, or those of an equal run of another study, whose record was taken over."""
    key = results.key_of(results.config_of(run, equal_time_views(run, storage.results)))
    own = _folder(run, key, storage) / WEIGHTS
    equal = [] if run.depends else sorted(storage.work.glob(f"*/*-seed{run.seed}-{key[:8]}/{WEIGHTS}"))
    return own if own.is_file() or not equal else equal[0]


def _folder(run: Run, key: str, storage: Storage) -> Path:
    return storage.work / run.study.name / f"{run.name}-{key[:8]}"


def _missing_weights(run: Run, storage: Storage) -> list[str]:
    """Names of the runs that this one needs and whose weights are not there."""
    return [
        f"{source.study.name}/{source.name}"
        for source in source_runs(run).values()
        if not (is_done(source, storage) and _weights_file(source, storage).is_file())
    ]


def _learned_spec(run: Run, storage: Storage, shelf: StoreShelf) -> dict[int, dict[str, Any]]:
    """The spec of each stage, with the shares that follow from the training images in the run that it names."""
    network, card = load_checkpoint(_weights_file(source_runs(run)["shares_from"], storage))
    train_store, _ = shelf.get(run.material, run.make_recipe())
    images = images_of(train_store, card.input, torch.device("cpu"))
    count = min(POLICY_IMAGES, len(train_store))
    batches = (images(start, min(start + BATCH, count)) for start in range(0, count, BATCH))
    return {stage: {"shares": list(shares)} for stage, shares in learn_shares(network, batches).items()}


def _views(run: Run, storage: Storage, shelf: StoreShelf, console: Console) -> int | None:
    """`equal_time_views`; step times that are missing are measured by one process, for all runs of the cell."""
    try:
        return equal_time_views(run, storage.results)
    except LookupError:
        pass
    with _lock(run, f"{run.cell}-timing", storage, wait=True):
        try:
            return equal_time_views(run, storage.results)  # another process measured meanwhile
        except LookupError:
            found = measure_step_times(run, storage.results, shelf, storage.device)
            console.line(f"{run.study.name}/{run.cell}: a step takes {found['ratio']:.2f} times its base's")
            return equal_time_views(run, storage.results)


def execute(run: Run, storage: Storage, shelf: StoreShelf, console: Console) -> results.Record:
    """Train and measure one run, and write its record."""
    views = _views(run, storage, shelf, console)
    config = results.config_of(run, views)
    key, recipe, sources = results.key_of(config), run.make_recipe(), source_runs(run)
    for name in ("weights", "teacher"):
        if (source := sources.get(f"{name}_from")) is not None:
            file: Any = str(_weights_file(source, storage))
            recipe = replace(recipe, **{name: file})
    folder = _folder(run, key, storage)
    if not run.depends and (twin := results.find_twin(storage.results, key)) is not None:
        record = replace(
            twin, study=run.study.name, cell=run.cell, network=run.network, recipe=run.recipe, data=run.data
        )
        results.write_record(results.record_path(storage.results, run), record)
        console.line(f"{run.study.name}/{run.name}: the same run as {twin.study}/{twin.cell}, taken over")
        return record
    if run.entry.shares_from is not None:
        spec = _learned_spec(run, storage, shelf)
        recipe = replace(recipe, network_kwargs={**recipe.network_kwargs, "spec": spec})
    console.line(f"{run.study.name}/{run.name}: training on {f'{views:,} views' if views else 'whole epochs'}")
    train_store, test_store = shelf.get(run.material, recipe)
    settings = Settings(storage.accelerator, resume=True, checkpoint_every=200, progress=storage.progress)
    job = StudyJob(run.material, train_store, test_store, views)
    fresh = not any((folder / name).exists() for name in STATES)  # else times of this process are of a part alone
    began = time.process_time()
    summary = train(recipe, run.material.folder or run.material.kind, folder, settings, job.build, Console(False))
    seconds = time.process_time() - began if fresh else None
    record = _record(run, storage, shelf, recipe, key, config, summary, folder, seconds)
    results.write_record(results.record_path(storage.results, run), record)
    for name in NOT_KEPT:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    value = record.values[run.study.metric]
    console.line(f"{run.study.name}/{run.name}: {run.study.metric} {value:.4f}, {summary.seconds:.0f} s")
    return record


def _record(
    run: Run, storage: Storage, shelf: StoreShelf, recipe: Recipe, key: str, config: dict, summary: Summary,
    folder: Path, processor_seconds: float | None,
) -> results.Record:  # fmt: skip
    device = storage.device
    train_store, test_store = shelf.get(run.material, recipe)
    network, card = load_checkpoint(folder / WEIGHTS)
    network = channels_last(network.to(device))
    stress = stress_stores(shelf, run.material, recipe, run.study.stress)
    untrained = replace(recipe, weights=None, convert=None, teacher=None)
    values = measure(
        network, lambda: make_network(untrained, train_store.classes)[0], recipe, card.input,
        train_store, test_store, summary.last_results, stress,
    )  # fmt: skip
    if run.study.metric not in values:
        hint = did_you_mean(run.study.metric, values, otherwise_all=True)
        raise UnknownMetric(f"{run.study.path}: there is no metric {run.study.metric!r}{hint}")
    if run.entry.shares_from is not None:
        specs = recipe.network_kwargs["spec"]
        values |= {f"share_high_stage_{stage}": spec["shares"][0] for stage, spec in specs.items()}
    cost = count(network, (3, *recipe.size))
    views = summary.steps * recipe.batch_size
    return results.Record(
        study=run.study.name, cell=run.cell, network=run.network, recipe=run.recipe, data=run.data, seed=run.seed,
        key=key, config=config, values=values, parameters=cost.parameters, macs=cost.macs, views=views,
        steps=summary.steps, train_seconds=summary.seconds, processor_seconds=processor_seconds,
        hardware=machine.device_line(device), versions=machine.versions_line(), commit=machine.commit(),
        command=f"elastic study {_shown(run.study.path)}", curve=_curve(folder / "train.csv"),
    )  # fmt: skip


def _shown(path: str) -> str:
    """The study's file as a record names it: folder and name alone of an absolute path, which is of one machine."""
    return "/".join(Path(path).parts[-2:]) if Path(path).is_absolute() else path


def _curve(path: Path) -> tuple[tuple[int, float], ...]:
    """(step, loss) of at most `CURVE_POINTS` rows of a run's train.csv."""
    try:
        rows = tuple((int(row["step"]), float(row["loss"])) for row in read_log(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): remove {path.parent}, and the run starts anew") from error
    return rows[:: -(-len(rows) // CURVE_POINTS)] if rows else ()


def list_runs(studies: Sequence[Study], storage: Storage) -> list[str]:
    """A line a run, with whether it is done."""
    return [
        f"{'done' if is_done(run, storage) else 'missing':8} {run.study.name}/{run.name}"
        for run in all_runs(studies, storage.only)
    ]
