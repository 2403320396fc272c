"""Recipes: everything that a training run depends on, but for the data and the machine, in one YAML file.

The same recipe trains a base network and its elastic partner; `network` is usually given on the command line.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks import strict
from elastic_cnn.tasks.blend import Blend
from elastic_cnn.tasks.distill import Distill
from elastic_cnn.tasks.geometry import both_sides, parse_size
from elastic_cnn.tasks.spec import task_spec


@dataclass(frozen=True)
class Optimizer:
    """name: `sgd`, or another of timm's optimizers (`adamw`, `lamb`, ...). momentum: of SGD and its kin.

    decay_norm_and_bias: whether weight decay also applies to norms and biases (the paper's way), or to weights alone.
    options: more arguments of the optimizer (`betas: [0.9, 0.95]`, ...); `layer_decay`: each layer's rate as a part of
        the next one's, by timm's numbers of layers, at least `layer_decay_min_scale`.
    A key that would do nothing with the optimizer is an error.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    options: dict[str, Any] = field(default_factory=dict)


SCHEDULES_OF = {"milestones": ("step",), "factor": ("step",), "power": ("poly",), "final": ("cosine", "poly")}


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, as a factor on `optimizer.lr` after a linear warm-up.

    constant; step: times `factor` from each epoch in `milestones` on; cosine: from 1 to `final`; poly:
    (1 - done)^`power`, never below `final`. Step changes between epochs, the others after each step.
    """

    name: Literal["constant", "step", "cosine", "poly"] = "cosine"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    power: float = 0.9
    warmup_epochs: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError(f"schedule.milestones belong to the step schedule; schedule.name is {self.name}")
        for key in ("factor", "power", "final"):
            value, names = getattr(self, key), SCHEDULES_OF[key]
            if value != getattr(Schedule, key) and self.name not in names:
                raise ValueError(
                    f"schedule.{key}={value} would do nothing: it belongs to {' and '.join(names)}, schedule.name is "
                    f"{self.name}"
                )
            if value < 0 or (key == "final" and value > 1):
                raise ValueError(
                    f"schedule.{key}={value} must {'lie in 0..1' if key == 'final' else 'not be negative'}"
                )
        if self.warmup_epochs < 0:
            raise ValueError(f"schedule.warmup_epochs={self.warmup_epochs} must not be negative")


@dataclass(frozen=True)
class Convert:
    """A conversion on training photos, without their labels, before the first step (`elastic_cnn.convert`).

    photos: how many to calibrate on. budget: multiply-adds over the network's, in 0..1; None converts every block that
    can be, with equal shares.
    """

    photos: int = 256
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.photos < 1:
            raise ValueError(f"convert.photos={self.photos} must be at least 1")
        if self.budget is not None and not 0 < self.budget < 1:
            raise ValueError(f"convert.budget={self.budget} must lie between 0 and 1")


@dataclass(frozen=True)
class Recipe:
    """One training run. The keys of a recipe file are the fields below.

    network, network_kwargs: for `create_model`; `num_classes` comes from the data.
    elastic: make the network elastic after its initial weights were loaded; for networks not elastic by name.
    convert: with `elastic`, convert on training photos so that the network keeps what it learnt; not done by default.
    freeze: parts that stay as they are, counted from the input (of a ResNet: stem, stages), or `backbone` for all but
        the classifier.
    blend: move the low branches from full resolution to their own between these parts of the run (for networks made
        elastic from trained weights); they start at their own by default.
    teacher: a checkpoint or run folder whose answers are the target, of the same classes, or a network's name, with
        timm's published weights; distill: how much the labels count beside it (not at all by default), and the
        temperature. Without labels, a checkpoint of more classes than the photos are of keeps its classifier.
    init: `timm` as the network's code has it, or `he_fan_in` (the paper's: He's normal, fan-in, for all convolutions).
    weights: initial weights: a checkpoint or run folder of this package, a file of weights, or `timm` (the published
        ones, downloaded). What fits is loaded, the rest is reported.
    image_size: of what the network trains and is tested on, in pixels: the side of a square, or height and width as
        [32, 128] or 32x128.
    batch_size: images an optimizer step, over all processes; accumulate: parts in which each process does its share.
    val_batch_size: images a process at a time in validation; `batch_size` over the parts by default.
    patience: stop after so many epochs that did not improve on the best validation; never by default.
    val_every: epochs from one validation to the next (the last epoch always has one).
    ema: decay of an exponential moving average of the weights, which is then validated and kept; none by default.
    clip_grad: largest norm of the gradient. precision: of the arithmetic; weights stay in 32 bits.
    fused: on the CPU, blocks compute in fused native passes (same gradients, other rounding): `auto` where they can
        (float32, channels_last, kernels at hand), `always` or an error, `never`.
    log_every: optimizer steps a row of train.csv.
    options: of the task.
    """

    task: str = "classification"
    network: str | None = None
    network_kwargs: dict[str, Any] = field(default_factory=dict)
    elastic: bool = False
    convert: Convert | None = None
    freeze: int | Literal["backbone"] = 0
    blend: Blend | None = None
    teacher: str | None = None
    distill: Distill = field(default_factory=Distill)
    init: Literal["timm", "he_fan_in"] = "timm"
    weights: str | None = None
    image_size: str | int | tuple[int, int] = 224
    epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    val_batch_size: int | None = None
    patience: int | None = None
    val_every: int = 1
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    ema: float | None = None
    clip_grad: float | None = None
    precision: Literal["fp32", "bf16-mixed", "16-mixed"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    fused: Literal["auto", "always", "never"] = "auto"
    seed: int = 0
    log_every: int = 20
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        task_spec(self.task)
        object.__setattr__(self, "image_size", parse_size(self.image_size))
        for name in ("epochs", "batch_size", "accumulate", "val_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.convert is not None and not self.elastic:
            raise ValueError("convert would do nothing without elastic=true")
        if isinstance(self.freeze, int) and self.freeze < 0:
            raise ValueError(f"freeze={self.freeze} must not be negative")
        for name in ("val_batch_size", "clip_grad", "patience"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} must lie between 0 and 1")
        if self.optimizer.lr <= 0:
            raise ValueError(f"optimizer.lr={self.optimizer.lr} must be positive")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return both_sides(parse_size(self.image_size))

    @property
    def side(self) -> int:
        """The side of a square input. `ValueError` where it is none."""
        if not isinstance(self.image_size, int):
            raise ValueError(f"image_size={self.image_size}: this works on squares alone; give one side")
        return self.image_size

    def to_dict(self) -> dict[str, Any]:
        """All keys as JSON values."""
        return _plain(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("elastic_cnn") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_file(name_or_path: str | Path) -> Path:
    """The file of a recipe: one of the package's by name, or any .yaml file. `ValueError` offers the nearest names."""
    text = str(name_or_path)
    if text in recipe_names():
        return Path(str(resources.files("elastic_cnn") / "recipes" / f"{text}.yaml"))
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ValueError(f"there is no recipe file {path}")
    hint = did_you_mean(text, recipe_names(), most=3, otherwise_all=True)
    raise ValueError(f"unknown recipe {text!r}{hint} (a file is given with its ending .yaml)")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe strictly and apply overrides such as `epochs=2` or `optimizer.lr=0.01`.

    `ValueError` as `read_recipe` says.
    """
    return read_recipe(name_or_path, overrides)[0]


def read_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, strict.Source]:
    """The same, and where its values stand, for what the network says of them (`strict.told_with_file`).

    `options` are checked against the task's `Options`. `ValueError` names the file, the line and the nearest key.
    """
    path = recipe_file(name_or_path)
    values, source = strict.read_yaml(path)
    for override in overrides:
        _override(values, source, override)
    _forget_other_schedule(values, source)
    recipe = strict.build(Recipe, values, source)
    task_options(recipe, source)
    return recipe, source


def _forget_other_schedule(values: dict[str, Any], source: strict.Source) -> None:
    """A schedule chosen on the command line takes none of the file's keys that belong to another one."""
    schedule = values.get("schedule")
    if source.lines.get(("schedule", "name")) != strict.COMMAND_LINE or not isinstance(schedule, dict):
        return
    for key, names in SCHEDULES_OF.items():
        if schedule["name"] not in names and source.lines.get(("schedule", key)) != strict.COMMAND_LINE:
            schedule.pop(key, None)


def task_options(recipe: Recipe, source: strict.Source | None = None) -> Any:
    """The recipe's `options` as the task's `Options`."""
    source = source or strict.Source("the recipe")
    return strict.build(task_spec(recipe.task).code("options"), recipe.options, source, ("options",))


def _override(values: dict[str, Any], source: strict.Source, override: str) -> None:
    """Set one dotted key in nested mappings."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ValueError(f"{override!r} is not of the form key=value")
    path = tuple(name.split("."))
    for key in path[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ValueError(f"{override!r}: {key} is a value and has no keys below it")
    values[path[-1]] = strict.parse_scalar(text)
    source.lines[path] = strict.COMMAND_LINE
