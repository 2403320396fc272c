"""A study: which networks are trained on which data, by which recipes and under which seeds, in one strict YAML file.

    title: Digits at known sizes
    question: Does Elastic err less than its base, and where?
    data: {kind: digits, train: 6000, test: 2000}
    recipe: {recipe: digits_demo, views: 16000, overrides: [precision=bf16-mixed]}
    seeds: [0, 1, 2]
    networks:
      base: {network: resnext_small}
      elastic: {network: resnext_small_elastic}
    metric: top1_error
    lower_is_better: true
    comparisons:
      - {network: elastic, against: base}

Several recipes or data sets stand under `recipes` and `data_sets`, by name: the runs are then all combinations.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from elastic_cnn.data.digits import DigitsSpec
from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks import strict
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.spec import study_kind, study_tasks
from elastic_cnn.zoo.factory import create_model, is_known

ONLY = "only"  # the name of what a study has but one of
SOURCES = ("weights_from", "teacher_from", "shares_from")  # what of a network names another, to be trained before


@dataclass(frozen=True)
class Data:
    """What to train and test on, kept in memory as small pictures.

    kind: `digits` (generated), `photos` (class folders), `coco` (COCO's layout), `masks` (photos with index masks), or
    what a task of one's own names (`TaskSpec.studies`).
    folder: of the photos, below the root that the command names. train, test: number of images, all by default (digits:
    6000 and 2000). seed: which images are drawn. sizes: of digits, heights in pixels. store: height and width in pixels
    at which training images are kept, by default 5/4 of the recipe's image size (the digits: the image size).
    test_store: the same for test images of `masks`. test_split: `val`, or another split to test on.
    """

    kind: str
    folder: str | None = None
    train: int | None = None
    test: int | None = None
    seed: int = 0
    sizes: tuple[float, float] = (8.0, 48.0)
    store: tuple[int, int] | None = None
    test_split: str = "val"

    def __post_init__(self) -> None:
        if self.kind not in (known := study_tasks()):
            raise ValueError(f"data.kind must be one of {', '.join(known)}, not {self.kind!r}")
        if study_kind(self.kind).in_folder != (self.folder is not None):
            raise ValueError(f"data of the kind {self.kind} {'take no' if self.folder else 'need a'} folder")
        for name in ("train", "test"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.store is not None and min(self.store) < 1:
            raise ValueError(f"store={list(self.store)} must be at least 1 pixel")
        if self.kind == "digits":
            DigitsSpec(image_size=math.ceil(max(self.sizes)), sizes=self.sizes, seed=self.seed)
        elif self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")


@dataclass(frozen=True)
class Training:
    """How to train: a recipe of the package or a file, with overrides (`key=value`).

    views: images that a run is trained on, repeats included, in place of whole epochs.
    """

    recipe: str
    views: int | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 1:
            raise ValueError(f"views={self.views} must be at least 1")


@dataclass(frozen=True)
class Network:
    """One network of a study.

    network, kwargs: for `create_model`. overrides: of the recipe, for this network alone (`elastic=true`).
    weights_from: start from the run of another network with the same seed: its name, or STUDY/NAME of another study.
    teacher_from: learn from the answers of such a run; `distill.labels=...` in the overrides says how much.
    shares_from: divide each stage as the trained run of another network of the study, with the same seed, responds
    (`learn_shares`).
    equal_time_to: the name of a network of the study; the views are then scaled by the measured times of a training
    step, so that both take equally long. Needs `views` in the recipe.
    rival: whether it is another way than Elastic's to look at several scales; one picture shows all of these.
    title: what tables call it, its name by default.
    """

    network: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    weights_from: str | None = None
    teacher_from: str | None = None
    shares_from: str | None = None
    equal_time_to: str | None = None
    rival: bool = False
    title: str | None = None


@dataclass(frozen=True)
class Comparison:
    """network, against: names of networks; runs with the same seed, recipe and data are paired. All metrics of the
    study are compared; `pooled` names a group whose pairs are also evaluated together."""

    network: str
    against: str
    pooled: str | None = None


@dataclass(frozen=True)
class Study:
    """A study; `name` is that of its file. `tables` name further metrics to show, `remarks` stand under the results.

    small_metric, large_metric: those of small and large objects, for the question where the gain is.
    stress: sides in pixels at which the trained networks are tested besides. order: place in the report.
    """

    title: str
    networks: dict[str, Any]
    metric: str
    question: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    data: Data | None = None
    data_sets: dict[str, Any] = field(default_factory=dict)
    recipe: Training | None = None
    recipes: dict[str, Any] = field(default_factory=dict)
    lower_is_better: bool = False
    tables: tuple[str, ...] = ()
    comparisons: tuple[Any, ...] = ()
    small_metric: str | None = None
    large_metric: str | None = None
    remarks: tuple[str, ...] = ()
    stress: tuple[int, ...] = ()
    order: int = 100
    name: str = ""
    path: str = ""

    def __post_init__(self) -> None:
        for one, many in (("data", "data_sets"), ("recipe", "recipes")):
            if getattr(self, one) is None and not getattr(self, many):
                raise ValueError(f"give {one} or {many}")
        if not self.networks:
            raise ValueError("networks: name at least one")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different whole numbers, at least one, got {list(self.seeds)}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must not be negative, got {list(self.seeds)}")
        if any(side < 1 for side in self.stress) or len(set(self.stress)) < len(self.stress):
            raise ValueError(f"stress must be different positive numbers of pixels, got {list(self.stress)}")

    def runs(self) -> list["Run"]:
        """All runs, seed by seed, so that a study which is cut short has as many seeds of each network."""
        return [
            Run(self, network, recipe, data, seed)
            for seed in self.seeds
            for data in self.data_sets
            for recipe in self.recipes
            for network in self.networks
        ]


@dataclass(frozen=True)
class Run:
    """One network trained once. `network`, `recipe` and `data` are names within the study."""

    study: Study
    network: str
    recipe: str
    data: str
    seed: int

    @property
    def cell(self) -> str:
        """The run's name without its seed."""
        return "-".join([self.network, *(part for part in (self.recipe, self.data) if part != ONLY)])

    @property
    def name(self) -> str:
        return f"{self.cell}-seed{self.seed}"

    @property
    def entry(self) -> Network:
        return self.study.networks[self.network]

    @property
    def training(self) -> Training:
        return self.study.recipes[self.recipe]

    @property
    def material(self) -> Data:
        return self.study.data_sets[self.data]

    @property
    def depends(self) -> bool:
        """Whether its outcome depends on another run's, which its configuration only names."""
        return any(getattr(self.entry, key) is not None for key in SOURCES)

    def sibling(self, network: str) -> "Run":
        """The run of another network under the same recipe, data and seed."""
        return replace(self, network=network)

    def make_recipe(self) -> Recipe:
        """The recipe of this run; of one that counts views, an epoch is the whole run. `ValueError` for bad keys."""
        entry, training = self.entry, self.training
        recipe = load_recipe(training.recipe, [*training.overrides, *entry.overrides])
        changes: dict[str, Any] = {
            "network": entry.network,
            "network_kwargs": {**recipe.network_kwargs, **entry.kwargs},
        }
        if training.views is not None:
            if recipe.schedule.warmup_epochs > 0.5:
                raise ValueError(f"{self.name}: with views an epoch is the whole run; set schedule.warmup_epochs below")
            changes["epochs"] = 1
        return replace(recipe, seed=self.seed, **changes)


def load_study(path: str | Path) -> Study:
    """Read a study strictly; each recipe and override is checked. `ValueError` names file, line and nearest key."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"there is no study {path}{did_you_mean(path.name, (file.name for file in path.parent.glob('*.yaml')))}"
        )
    values, source = strict.read_yaml(path)
    for key in ("name", "path"):
        if key in values:
            raise ValueError(f"{source.at((key,))}: unknown key {key!r}: a study has the name of its file")
    study = replace(strict.build(Study, values, source), name=path.stem, path=str(path))
    for one, many in (("data", "data_sets"), ("recipe", "recipes")):
        if getattr(study, one) is not None and getattr(study, many):
            raise ValueError(f"{source.at((many,))}: give {one} or {many}, not both")
    networks = _entries(Network, study.networks, source, "networks")
    study = _complete(study, networks, source)
    for run in study.runs()[: len(study.networks) * len(study.recipes) * len(study.data_sets)]:
        _check_run(run, source)
    return study


def _complete(study: Study, networks: dict[str, Any], source: strict.Source) -> Study:
    """With all entries as their classes; what stands alone gets the name `ONLY`."""
    data = {ONLY: study.data} if study.data else _entries(Data, study.data_sets, source, "data_sets")
    recipes = {ONLY: study.recipe} if study.recipe else _entries(Training, study.recipes, source, "recipes")
    comparisons = []
    for number, values in enumerate(study.comparisons):
        where = ("comparisons", str(number))
        if not isinstance(values, dict):
            raise ValueError(f"{source.name}: {'.'.join(where)} must be a mapping, not {values!r}")
        comparison = strict.build(Comparison, values, source, where)
        for key in ("network", "against"):
            _known(getattr(comparison, key), networks, f"{source.at((*where, key))}: {'.'.join(where)}")
        comparisons.append(comparison)
    return replace(study, networks=networks, data_sets=data, recipes=recipes, comparisons=tuple(comparisons))


def _entries(cls: type, values: dict[str, Any], source: strict.Source, key: str) -> dict[str, Any]:
    for name, entry in values.items():
        if not isinstance(entry, dict):
            raise ValueError(
                f"{source.at((key, name))}: {key}.{name} must be a mapping of keys to values, not {entry!r}"
            )
        if not name.replace("_", "").isalnum():
            raise ValueError(f"{source.at((key, name))}: {name!r} names files: use letters, digits and _ alone")
    return {name: strict.build(cls, entry, source, (key, name)) for name, entry in values.items()}


def _known(name: str, networks: dict[str, Any], where: str) -> None:
    if name not in networks:
        hint = did_you_mean(name, networks, otherwise_all=True)
        raise ValueError(f"{where}: the study has no network {name!r}{hint}")


def _check_run(run: Run, source: strict.Source) -> None:
    """`ValueError` where the run's recipe or what it refers to does not exist."""
    where = source.at(("networks", run.network))
    entry = run.entry
    if entry.shares_from is not None:
        _known(entry.shares_from, run.study.networks, where)
        if entry.shares_from == run.network or "spec" in entry.kwargs:
            raise ValueError(f"{where}: shares_from names another network, and takes the place of a spec in kwargs")
    if entry.equal_time_to is not None:
        _known(entry.equal_time_to, run.study.networks, where)
        if run.training.views is None:
            raise ValueError(f"{where}: equal_time_to needs views in the recipe")
        if entry.equal_time_to == run.network:
            raise ValueError(f"{where}: equal_time_to names the network itself: name its base")
        if entry.teacher_from is not None:
            raise ValueError(f"{where}: equal_time_to leaves out what a teacher takes: leave out teacher_from")
    _check_sources(run, where)
    try:
        recipe = run.make_recipe()
        if ":" not in entry.network and not is_known(entry.network):
            create_model(entry.network)  # says which names are near
    except ValueError as error:
        reason = str(error).replace("the command line: ", "overrides: ", 1)  # where a recipe's reader thinks they are
        raise ValueError(f"{where}: {reason}") from error
    for name in ("color_jitter", "auto_augment", "erase"):
        if recipe.options.get(name):
            raise ValueError(f"{where}: pictures in memory take no {name}: set options.{name}=0 in the overrides")
    wanted = study_tasks()
    if recipe.task != wanted[run.material.kind]:
        raise ValueError(
            f"{where}: the recipe {run.training.recipe} is for {recipe.task}, data of the kind {run.material.kind} "
            f"for {wanted[run.material.kind]}"
        )


def _check_sources(run: Run, where: str) -> None:
    """`ValueError` where a network starts from one that the study lacks, or in the end from itself."""

    def follow(way: list[str]) -> None:
        entry = run.study.networks[way[-1]]
        for key in SOURCES:
            name = getattr(entry, key)
            if name is None or "/" in name:
                continue
            _known(name, run.study.networks, where)
            if name in way:
                raise ValueError(f"{where}: {key} goes in a circle: {' from '.join([*way, name])}")
            follow([*way, name])

    follow([run.network])
