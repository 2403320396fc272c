"""One class an image: ImageNet and every folder of class folders (paper, Table 2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from elastic_cnn.data.common_photos import common_photos
from elastic_cnn.data.held_out import HeldOut
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.listings import write_listing
from elastic_cnn.data.photo_list import keep_listed
from elastic_cnn.data.splits import split_place, undivided
from elastic_cnn.data.transforms import check_policy, eval_transform
from elastic_cnn.files import atomic_write
from elastic_cnn.tasks.elastic_start import files_of
from elastic_cnn.tasks.geometry import CropOptions, testing_transform, training_transform
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.run_folder import SAME_ANSWERS
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.task import Batch, Job, Task
from elastic_cnn.tasks.weights import classes_to_keep, make_network
from elastic_cnn.zoo.checkpoint import LEAST_CROP, NetworkCard

DRAWN = 200  # classes, of which confusions are counted in training
DARK = (8.0, 48.0, 107.0)


@dataclass(frozen=True)
class Options(CropOptions):
    """label_smoothing: part of the target spread over all classes. mixup, cutmix: their alpha; 0 leaves them out.

    auto_augment: timm's policy (`rand-m9-mstd0.5-inc1`), none by default. erase: probability of random erasing.
    crop_pct: part of the resized picture that the test crop keeps (224 of 256 in the paper). loading: of training
    photos; `fast` takes half the time and gives nearly the same pixels (docs/scaling.md). train_split, val_split: names
    of the folders.
    classes_from: a class is named by the `folder` that its pictures lie in, by the `top` folder that they lie below, or
        by the whole `path` to it (`birds/owl`).
    split: the part of each class's photos to test on where the data has no `val`; the run's split.csv lists them.
    skew: against classes of unequal numbers of photos, `weights` (the loss of a photo counts as the mean number of
    photos a class over that of its class) or `sampling` (all classes are drawn equally often); `ignore` by default.
    only, without: a list of photos (paths a line, or a CSV with a column `path`, as the explorer writes them): train on
    these alone, or on all but these. labels: the `folders` that photos lie in, or `none`: photos as they come, for a
    run in which a teacher alone says what is right (`teacher`, distill.labels=0); those that lie in no class folder
    have none in such a run anyway. The other keys are those of `CropOptions`.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    auto_augment: str | None = None
    erase: float = 0.0
    crop_pct: float = 0.875
    loading: Literal["exact", "fast"] = "exact"
    train_split: str = "train"
    val_split: str = "val"
    classes_from: Literal["folder", "top", "path"] = "folder"
    split: float | None = None
    skew: Literal["ignore", "weights", "sampling"] = "ignore"
    only: str | None = None
    without: str | None = None
    labels: Literal["folders", "none"] = "folders"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("label_smoothing", "erase"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"options.{name}={getattr(self, name)} must lie in 0..1")
        if not LEAST_CROP <= self.crop_pct <= 1:
            raise ValueError(f"options.crop_pct={self.crop_pct} must lie in {LEAST_CROP}..1")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"options.{name}={getattr(self, name)} must not be negative")
        if self.split is not None:
            HeldOut(self.split)
        if self.auto_augment is not None:
            check_policy(self.auto_augment)
        if self.color_jitter and self.auto_augment and "3a" not in self.auto_augment:
            raise ValueError(
                f"options.color_jitter={self.color_jitter} would do nothing beside auto_augment, which changes colours"
            )


class Classification(Task):
    """Cross-entropy; top-1 and top-5 error. `metric` is `top1`, the accuracy."""

    metric = "top1"
    told: tuple[str, ...] = ("loss", "top1", "top5", "top1_error", "top5_error")

    def __init__(
        self, network: nn.Module, num_classes: int, options: Options = Options(), weights: Tensor | None = None
    ) -> None:
        """weights: how much the loss of a photo of each class counts, (num_classes,)."""
        super().__init__(network)
        self.options, self.num_classes = options, num_classes
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.mix = None
        if options.mixup or options.cutmix:
            self.mix = Mixup(
                options.mixup, options.cutmix, label_smoothing=options.label_smoothing, num_classes=num_classes
            )
        accuracy: dict[str, Metric | MetricCollection] = {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro") for k in (1, 5)
        }
        self.accuracy = MetricCollection(accuracy, compute_groups=False)
        self.confusion = MulticlassConfusionMatrix(num_classes) if num_classes <= DRAWN else None
        self.counts: Tensor | None = None  # of the last validation, (C, C): rows are the truth
        self.loss = MeanMetric()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """batch: image (N, 3, H, W), target (N,) -> the mean cross-entropy, ()."""
        images, targets = batch["image"], batch["target"]
        if self.mix is not None and len(images) > 1:
            even = len(images) // 2 * 2  # timm's mixing pairs images
            images, targets = self.mix(images[:even], targets[:even])
            return self._loss(self(images), targets, 0.0)
        return self._loss(self(images), targets, self.options.label_smoothing)

    def _loss(self, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Logits (N, C) and targets, (N,) or mixed (N, C) -> (): the mean, each image times the weight of its class."""
        if self.weights is None:
            return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
        losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        weights = self.weights[targets] if targets.ndim == 1 else targets.to(self.weights.dtype) @ self.weights
        return (losses * weights).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """batch: as in training; counts hits and the loss without smoothing."""
        logits = self(batch["image"]).float()
        self.accuracy.update(logits, batch["target"])
        if self.confusion is not None:
            self.confusion.update(logits, batch["target"])
        self.loss.update(functional.cross_entropy(logits, batch["target"], reduction="none"))

    def validation_results(self) -> dict[str, Any]:
        """loss, top1, top5 (fractions right) and top1_error, top5_error."""
        right = {name: float(value) for name, value in self.accuracy.compute().items()}
        results = {"loss": float(self.loss.compute()), **right, **{f"{name}_error": 1 - right[name] for name in right}}
        self.accuracy.reset()
        self.loss.reset()
        if self.confusion is not None:
            self.counts = self.confusion.compute()
            self.confusion.reset()
        return results

    def save_pictures(self, folder: Path, epoch: int) -> list[Path]:
        """confusion.png: a square a pair of classes, the darker the larger its part of a class's photos; rows are the
        truth, columns the answers, both in the classes' order."""
        if self.counts is None:
            return []
        parts = self.counts.cpu().double() / self.counts.sum(1, keepdim=True).clamp_min(1).cpu()
        paint = torch.tensor([255.0, 255.0, 255.0]) * (1 - parts[..., None]) + torch.tensor(DARK) * parts[..., None]
        side = max(1, 480 // len(parts))
        pixels = paint.round().to(torch.uint8).repeat_interleave(side, 0).repeat_interleave(side, 1)
        with atomic_write(folder / "confusion.png") as temporary:
            Image.fromarray(pixels.numpy()).save(temporary, "PNG")
        return [folder / "confusion.png"]

    def headline(self, results: dict[str, Any]) -> str:
        # of five classes and fewer all answers are among the first five
        kinds = (1, 5) if self.num_classes > 5 else (1,)
        errors = ", ".join(f"top-{k} error {100 * results[f'top{k}_error']:.2f}%" for k in kinds)
        return f"loss {results['loss']:.3f}, {errors}"


class SameAnswers(Classification):
    """For photos without labels, whose targets are a teacher's answers: how many of those stay and how many change."""

    metric = SAME_ANSWERS
    told = ("loss", SAME_ANSWERS, "changed_answers")

    def validation_results(self) -> dict[str, Any]:
        """loss, same_answers and changed_answers (fractions of the photos)."""
        found = super().validation_results()
        return {"loss": found["loss"], SAME_ANSWERS: found["top1"], "changed_answers": found["top1_error"]}

    def headline(self, results: dict[str, Any]) -> str:
        changed = 100 * results["changed_answers"]
        return f"loss {results['loss']:.3f}, {changed:.2f}% of the teacher's answers changed"


def build(recipe: Recipe, data: str, settings: Settings) -> Job:
    """Photos by class from the splits `train` and `val` of `data`, and the network for their classes."""
    options: Options = task_options(recipe)
    held_out = None if options.split is None else HeldOut(options.split, recipe.seed)
    ways: dict[str, Any] = {"classes_from": options.classes_from, "held_out": held_out}
    known = classes_to_keep(recipe)
    ways["labels"] = _labels(options, known, data)
    train = ImageFolder(data, options.train_split, eval_transform(), **ways)
    taught = train.classes == ("",)
    if not taught:
        train.require_several_classes()
    if not taught and set(train.classes) <= set(known):
        train = ImageFolder(data, options.train_split, eval_transform(), known, **ways)
    if taught and options.skew != "ignore":
        raise ValueError(f"options.skew={options.skew} goes by the classes of photos, which these have none of")
    classes = known if taught else train.classes
    keep_listed(train, data, options.only, options.without)
    network, card = make_network(recipe, classes, train, **options.input_fields(options.crop_pct))
    prepare_test = card.transform()
    beyond = {"auto_augment": options.auto_augment, "erase": options.erase, "loading": options.loading}
    train.transform = training_transform(card.input, options, prepare_test, **beyond)
    val = ImageFolder(data, options.val_split, prepare_test, train.classes, **ways)
    if val.lacking == train.lacking:  # told of train; a network may keep classes of which there are no photos
        val.notices = tuple(notice for notice in val.notices if notice != val.lacking_line)
    val.notices += common_photos(train, val)
    weights, balance = _against_skew(train, options.skew)
    task = (SameAnswers if taught else Classification)(network, len(classes), options, weights)
    files = files_of(recipe, network, card) | ({"split.csv": _lists(train, val)} if train.whole else {})
    return Job(task, card, train, val, balance, files, taught)


def _labels(options: Options, known: Sequence[str], data: str) -> str:
    """Whether the photos must have labels, as `ImageFolder` says it; known: the classes that a teacher's pupil keeps.

    `ValueError` where photos without labels are given to what needs them, or are not divided.
    """
    if options.labels == "none" and not known:
        raise ValueError(
            "options.labels=none: photos without labels serve where a teacher alone says what is right: give "
            "teacher=BASE and weights=CHECKPOINT, and leave out network and distill.labels"
        )
    if not known:
        return "needed"
    if options.split is None and undivided(data) is not None:
        split_place(Path(data), options.val_split)  # says what is missing
    return "unused" if options.labels == "none" else "optional"


def _against_skew(train: ImageFolder, skew: str) -> tuple[Tensor | None, list[int] | None]:
    """The weight of each class in the loss, and the class of each photo, to be drawn equally often."""
    if skew == "ignore":
        return None, None
    targets = [train.target(index) for index in range(len(train))]
    if skew == "sampling":
        return None, targets
    counts = torch.bincount(torch.tensor(targets), minlength=len(train.classes)).float()
    return counts.sum() / (len(counts) * counts.clamp(min=1)), None  # a list of photos may leave a class none


def _lists(train: ImageFolder, val: ImageFolder) -> Callable[[Path], None]:
    """Writes down which photos are trained on and which are tested on."""
    return lambda path: write_listing(path, [*train.rows("train"), *val.rows("val")])


def build_test(
    network: nn.Module, card: NetworkCard, data: str, split: str, options: TestOptions
) -> tuple[Task, ImageFolder]:
    """The task and a split to test it on; it may lack classes. `ValueError` where it has others than the checkpoint."""
    samples = ImageFolder(data, split, testing_transform(card, options.image_size), card.classes)
    return Classification(network, len(card.classes)), samples
