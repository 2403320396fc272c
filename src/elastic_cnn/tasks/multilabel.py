"""Several classes an image, with object sizes: MS COCO (paper, section 4.2, Tables 3 and 4)."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import CatMetric
from torchmetrics.utilities import dim_zero_cat

from elastic_cnn.data.coco import SIZE_NAMES, CocoImages, CocoPlaces
from elastic_cnn.data.common_photos import common_files
from elastic_cnn.data.folders import alike
from elastic_cnn.data.left_out import warn
from elastic_cnn.data.transforms import eval_transform
from elastic_cnn.metrics.multilabel import MeanAveragePrecision, MultilabelScores
from elastic_cnn.tasks.elastic_start import files_of
from elastic_cnn.tasks.geometry import CropOptions, testing_transform, training_transform
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.task import Batch, Job, ParameterGroup, Task, backbone_and_head
from elastic_cnn.tasks.weights import make_network
from elastic_cnn.zoo.checkpoint import NetworkCard

DATA_KEYS = ("exclude", "crowds", "zero_area")


@dataclass(frozen=True)
class Options(CropOptions):
    """train_split, val_split: names of the splits (`train2014`, ...; see `find_annotations`).

    annotations, images: where a split's file and photos lie, see `data.coco_files.CocoPlaces`.
    exclude: categories to leave out. crowds: `label` counts them like objects, `drop` leaves them out. zero_area: what
    to do with objects of area 0: refuse the file (`error`), `keep` them as small, `drop` them.
    loss: `bce`, or `asymmetric` (Ridnik et al. 2021; timm's) with gamma_negative, gamma_positive and clip.
    head_lr_factor: learning rate of the classifier, as a multiple of the recipe's.
    The other keys are those of `CropOptions`; without a crop_mode training crops freely and testing squashes.
    """

    crop_mode: Literal["center", "border", "squash"] | None = None

    train_split: str = "train"
    val_split: str = "val"
    annotations: str = ""
    images: str = ""
    exclude: tuple[str, ...] = ()
    crowds: Literal["label", "drop"] = "label"
    zero_area: Literal["error", "keep", "drop"] = "error"
    loss: Literal["bce", "asymmetric"] = "bce"
    gamma_negative: float = 4.0
    gamma_positive: float = 1.0
    clip: float = 0.05
    head_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma_negative", "gamma_positive"):
            if getattr(self, name) < 0:
                raise ValueError(f"options.{name}={getattr(self, name)} must not be negative")
        for name in ("gamma_negative", "gamma_positive", "clip"):
            if self.loss != "asymmetric" and getattr(self, name) != getattr(Options, name):
                raise ValueError(f"options.{name}={getattr(self, name)} would do nothing: it is of loss=asymmetric")
        if not 0 <= self.clip < 1:
            raise ValueError(f"options.clip={self.clip} must lie in 0..1")
        if self.head_lr_factor <= 0:
            raise ValueError(f"options.head_lr_factor={self.head_lr_factor} must be positive")
        self.places.check_splits(self.train_split, self.val_split)

    @property
    def places(self) -> CocoPlaces:
        """Where annotations and photos lie."""
        return CocoPlaces(self.annotations, self.images)

    @property
    def data(self) -> dict[str, Any]:
        """What decides on the classes and targets: arguments of `CocoImages`."""
        return {name: getattr(self, name) for name in DATA_KEYS}


class Multilabel(Task):
    """A sigmoid a class. `metric` is `map`, which needs no threshold; the paper's F1-PerClass stands beside it.

    A batch holds image (N, 3, H, W), targets (N, C) 0 or 1, size_targets (N, 3, C) bool.
    """

    metric = "map"

    def __init__(self, network: nn.Module, classes: Sequence[str], options: Options = Options()) -> None:
        super().__init__(network)
        self.classes, self.options = list(classes), options
        self.asymmetric = _asymmetric_loss(options) if options.loss == "asymmetric" else None
        self.scores = MultilabelScores(len(classes), SIZE_NAMES)
        self.precision = MeanAveragePrecision(len(classes))
        self.losses = CatMetric()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss summed over the classes and averaged over the images, ()."""
        logits, targets = self(batch["image"]).float(), batch["targets"]  # (N, C) each
        if self.asymmetric is not None:
            return self.asymmetric(logits, targets) / len(logits)
        return cross_entropy(logits, targets).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts labels above probability 0.5; the loss is the cross-entropy, whatever was trained with."""
        logits, targets = self(batch["image"]).float(), batch["targets"]
        probabilities = logits.sigmoid()
        self.scores.update(probabilities, targets, batch["size_targets"])
        self.precision.update(probabilities, targets)
        self.losses.update(cross_entropy(logits, targets))

    def validation_results(self) -> dict[str, Any]:
        """loss, map, f1_per_class, f1_overall, precision_..., recall_..., each by size too (`f1_overall_small`); a
        class in lists: class_names, class_f1, class_f1_small, class_positives, class_average_precision, class_threshold
        (of the largest F1 on these images). None for a
        class or a size that does not occur; `f1_per_class_present` is the mean over the classes that do."""
        results: dict[str, Any] = {"loss": self._mean_loss(), "map": _number(self.precision.compute())}
        results |= {name: _number(value) for name, value in self.scores.compute().items()}
        results["class_names"] = self.classes
        with self.scores.sync_context():
            for name, values in self.scores.per_class().items():
                results[f"class_{name}"] = values.tolist() if name.startswith("positives") else _numbers(values)
        with self.precision.sync_context():
            results["class_average_precision"] = _numbers(self.precision.class_precisions())
            results["class_threshold"] = self.precision.class_thresholds().tolist()
        for metric in (self.scores, self.precision, self.losses):
            metric.reset()
        return results

    def _mean_loss(self) -> float:
        """Summed exactly, so that the division of the images over processes does not show."""
        with self.losses.sync_context():
            losses = dim_zero_cat(self.losses.value).flatten().tolist() if len(self.losses.value) else []
        if not losses:
            raise ValueError("no image to test: none of the split's could be read")
        return math.fsum(losses) / len(losses)

    def parameter_groups(self) -> list[ParameterGroup]:
        """The classifier on its own where it has its own learning rate."""
        classifier = getattr(self.network, "get_classifier", lambda: None)()
        if self.options.head_lr_factor == 1 or classifier is None:
            return super().parameter_groups()
        return backbone_and_head(self.network, classifier.parameters(), self.options.head_lr_factor)

    def headline(self, results: dict[str, Any]) -> str:
        sizes = " / ".join(_per_cent(results[f"f1_per_class_{size}"]) for size in SIZE_NAMES)
        mean = "" if results["map"] is None else f", mAP {100 * results['map']:.2f}%"
        absent = results["class_positives"].count(0)
        present = len(self.classes) - absent
        of = f" ({_per_cent(results['f1_per_class_present'])}% of the {present} that occur)" if absent else ""
        return (
            f"loss {results['loss']:.3f}, F1 per class {100 * results['f1_per_class']:.2f}%{of} "
            f"({', '.join(SIZE_NAMES)}: {sizes}), overall {100 * results['f1_overall']:.2f}%{mean}"
        )


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each image, summed over the classes: (N, C), (N, C) -> (N,)."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)


def _asymmetric_loss(options: Options) -> nn.Module:
    """timm's, summed over images and classes (all that its older versions can do)."""
    known = inspect.signature(AsymmetricLossMultiLabel).parameters
    extra: dict[str, Any] = {"reduction": "sum"} if "reduction" in known else {}
    return AsymmetricLossMultiLabel(options.gamma_negative, options.gamma_positive, options.clip, **extra)


def _number(value: Tensor) -> float | None:
    return None if torch.isnan(value) else float(value)


def _numbers(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values]


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def build(recipe: Recipe, data: str, settings: Settings) -> Job:
    """COCO's splits in the folder `data`, and the network for their classes."""
    options: Options = task_options(recipe)
    train = CocoImages(data, options.train_split, eval_transform(), options.places, **options.data)
    val = CocoImages(data, options.val_split, eval_transform(), options.places, **options.data, classes=train.classes)
    if train.annotations.path == val.annotations.path:
        warn(
            f"training and testing read the same file, {val.annotations.path}: the scores say nothing about new photos"
        )
    else:
        for notice in common_files(train.files, val.files):
            warn(notice)
    train.annotations.require_objects()
    for notice in alike(train.classes, "train"):
        warn(notice)
    if unused := train.annotations.unused:
        names = ", ".join(unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else "")
        warn(
            f"no object in {train.annotations.path} is of the class{'es' * (len(unused) > 1)} {names}, which cannot be "
            f"learnt: leave out what is no class with options.exclude=[{', '.join(unused[:8])}]"
        )
    network, card = make_network(recipe, train.classes, train, **options.input_fields(crop_mode="squash"))
    card = replace(card, info={**card.info, "data": {**options.data, **_portable(options.places)}})
    val.transform = prepare_test = card.transform()
    train.transform = training_transform(card.input, options, prepare_test)
    task = Multilabel(network, train.classes, options)
    return Job(task, card, train, val, files=files_of(recipe, network, card))


def build_test(
    network: nn.Module, card: NetworkCard, data: str, split: str, options: TestOptions
) -> tuple[Task, CocoImages]:
    """The task and a split to test it on, without the categories that training left out.

    `ValueError` where objects are of a category that is not among the checkpoint's classes.
    """
    known = card.info.get("data", {})
    kept = {key: value for key, value in known.items() if key in DATA_KEYS}
    places = CocoPlaces(options.annotations or known.get("annotations", ""), options.images or known.get("images", ""))
    samples = CocoImages(data, split, testing_transform(card, options.image_size), places, **kept, classes=card.classes)
    return Multilabel(network, card.classes), samples


def _portable(places: CocoPlaces) -> dict[str, str]:
    """What a checkpoint keeps of the places: those below the data folder."""
    return {key: value for key, value in asdict(places).items() if value and not Path(value).is_absolute()}
