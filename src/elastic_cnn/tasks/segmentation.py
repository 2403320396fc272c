"""A class for every pixel: PASCAL VOC 2012 and folders of photos with index masks (paper, section 4.3 and Table 5)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from elastic_cnn.data.common_photos import common_files
from elastic_cnn.data.labels import LABELS_FILE, VOC_LABELS, Labels, read_labels
from elastic_cnn.data.left_out import warn
from elastic_cnn.data.mask_files import classes_not_seen
from elastic_cnn.data.mask_pairs import Layout, Pairs, folder_pairs, voc_pairs
from elastic_cnn.data.mask_pictures import colour_mask, contact_sheet, overlay, save_picture, visible
from elastic_cnn.data.mask_transforms import IGNORE
from elastic_cnn.data.masks import MaskSamples
from elastic_cnn.metrics.segmentation import PixelConfusion, iou_per_class, mean_iou, pixel_accuracy
from elastic_cnn.tasks.geometry import GeometryOptions, both_sides
from elastic_cnn.tasks.grad_checkpoint import checkpoint_blocks
from elastic_cnn.tasks.mask_labels import LABELS_KEY, card_labels, reading_of
from elastic_cnn.tasks.recipe import Recipe, task_options
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.strict import Refused
from elastic_cnn.tasks.task import Batch, Job, ParameterGroup, Task, backbone_and_head
from elastic_cnn.tasks.weights import make_network
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard

LAYOUT_KEYS = ("photos", "masks", "photo_suffix", "mask_suffix")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Options(GeometryOptions):
    """dataset: `folder` (photos in SPLIT/, masks in SPLITannot/) or `voc` (VOC 2012; training on `train_split`).

    photos, masks, photo_suffix, mask_suffix: where a folder keeps them, see `data.mask_pairs.Layout`.
    classes, void, palette, values: what a folder's masks mean, see `data.labels.Labels`; from its labels.json where no
    classes are given.
    train_split, val_split: names of the splits; `train_aug` with `voc` adds SBD's masks.
    scale: range of the random scale in training. test_size: `crop` pads test photos to image_size at the least, with
    `own` they keep their size. head_lr: factor on the rate of everything but the backbone. freeze_norms: the
    backbone's batch norms keep their initial statistics and weights. sync_norms: batch norms share their statistics
    over the processes. checkpoint_blocks: the backbone's blocks keep their inputs alone, which saves memory.
    sheet: photos on the contact sheet of a validation; 0 for none.
    The other keys are those of `GeometryOptions`, without crop_mode and quarter_turns.
    """

    dataset: Literal["folder", "voc"] = "folder"
    photos: str = ""
    masks: str = ""
    photo_suffix: str = ""
    mask_suffix: str = ""
    classes: tuple[str, ...] = ()
    void: int = IGNORE
    palette: tuple[tuple[int, int, int], ...] = ()
    values: dict[int | str, int | str | None] = field(default_factory=dict)
    train_split: str = "train"
    val_split: str = "val"
    scale: tuple[float, float] = (0.5, 2.0)
    test_size: Literal["crop", "own"] = "crop"
    head_lr: float = 1.0
    freeze_norms: bool = False
    sync_norms: bool = False
    checkpoint_blocks: bool = False
    sheet: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        heeded = ("hflip", "vflip", "rotation", "max_value", "background")
        self.refuse_all_but(heeded, "segmentation crops and pads by image_size, scale and test_size alone")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"options.scale={list(self.scale)} must be two positive factors, the smaller first")
        if self.head_lr < 0 or self.sheet < 0:
            raise ValueError(f"options.head_lr={self.head_lr} and options.sheet={self.sheet} must not be negative")
        if self.dataset == "voc" and self.classes:
            raise ValueError("options.classes belong to dataset: folder; VOC has its own")
        for name in (*LAYOUT_KEYS, "void", "palette"):
            if self.dataset == "voc" and getattr(self, name) != getattr(Options, name):
                raise ValueError(f"options.{name}={getattr(self, name)} would do nothing: it is of dataset: folder")
        if self.values and not self.classes:
            raise ValueError("options.values belong to options.classes: give both, or both in the data's labels.json")
        _ = self.layout

    @property
    def layout(self) -> Layout:
        """Where a folder keeps photos and masks."""
        return Layout(**{key: getattr(self, key) for key in LAYOUT_KEYS})

    def labels(self, data: str) -> Labels:
        """What the values in the masks of `data` mean."""
        if self.dataset == "voc":
            return VOC_LABELS
        if not self.classes:
            return read_labels(Path(data))
        return Labels(self.classes, self.void, self.palette, self.values)


def backbone_of(network: nn.Module) -> nn.Module | None:
    """The part that comes with a classifier's weights: `network.backbone`, or None where all is one."""
    return getattr(network, "backbone", None)


class Segmentation(Task):
    """Cross-entropy over the pixels that count; mIoU over the whole set, IoU of each class, pixel accuracy."""

    metric = "miou"

    def __init__(self, network: nn.Module, labels: Labels, options: Options | None = None) -> None:
        super().__init__(network)
        self.labels, self.options = labels, options or Options()
        self.confusion = PixelConfusion(len(labels.classes))
        self.loss = MeanMetric()
        self._shown: list[tuple[Image.Image, np.ndarray, np.ndarray]] = []  # photo, target, prediction
        self._sheet = self._shown  # of the last finished validation
        self.spec: InputSpec = InputSpec()
        self.on_sheet: frozenset[int] = frozenset()  # indices of samples
        if self.options.freeze_norms:
            for module in self._frozen_norms():
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Segmentation":
        super().train(mode)
        for module in self._frozen_norms() if self.options.freeze_norms else ():
            module.eval()
        return self

    def _frozen_norms(self) -> Iterator[nn.Module]:
        backbone = backbone_of(self.network)
        if backbone is None:
            raise ValueError(f"freeze_norms: {type(self.network).__name__} has no backbone apart from its head")
        return (module for module in backbone.modules() if isinstance(module, NORMS))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """batch: image (N, C, H, W), target (N, H, W) -> the mean cross-entropy of the pixels that count, ()."""
        return pixel_loss(self(batch["image"]), batch["target"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """batch: as in training; counts pixels by true and predicted class."""
        logits, targets = self(batch["image"]), batch["target"]
        preds = logits.argmax(1)  # (N, H, W)
        self.confusion.update(preds, targets)
        counted = int((targets != IGNORE).sum())
        if counted:
            self.loss.update(pixel_loss(logits, targets), weight=counted)
        for position, index in enumerate(batch["index"].tolist() if self.on_sheet else ()):
            if index in self.on_sheet:
                masks = (part[position].to(torch.uint8).cpu().numpy() for part in (targets, preds))
                self._shown.append((self._photo(batch["image"][position]), *masks))

    def _photo(self, image: Tensor) -> Image.Image:
        """(C, H, W) normalised -> the photo."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.spec.mean, self.spec.std))
        return visible(image.float().cpu() * std + mean)

    def validation_results(self) -> dict[str, Any]:
        """loss, miou, pixel_accuracy, and `iou_CLASS` of each class; None for a class that did not occur."""
        confusion = self.confusion.compute().cpu()
        results: dict[str, Any] = {"loss": float(self.loss.compute())} if self.loss.update_called else {}
        results |= {"miou": mean_iou(confusion), "pixel_accuracy": pixel_accuracy(confusion)}
        for name, iou in zip(self.labels.classes, iou_per_class(confusion).tolist(), strict=True):
            results[f"iou_{name}"] = None if np.isnan(iou) else iou
        self.confusion.reset()
        self.loss.reset()
        self._sheet, self._shown = self._shown, []
        return results

    def headline(self, results: dict[str, Any]) -> str:
        return f"mIoU {100 * results['miou']:.2f}%, pixel accuracy {100 * results['pixel_accuracy']:.2f}%"

    def save_pictures(self, folder: Path, epoch: int) -> list[Path]:
        """The contact sheet: photo, true mask, predicted mask and overlay of photos spread over the split.

        Of several processes, the first shows those that it was dealt.
        """
        if not self._sheet:
            return []
        colours = self.labels.palette
        rows = [
            (photo, colour_mask(target, colours), colour_mask(pred, colours), overlay(photo, pred, colours))
            for photo, target, pred in self._sheet
        ]
        sheet = contact_sheet(rows, self.labels.classes, colours)
        return [save_picture(sheet, folder / f"masks_epoch_{epoch:03d}.png")]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The backbone at the recipe's rate, the rest at `head_lr` times it; one group where there is no backbone."""
        backbone = backbone_of(self.network)
        if backbone is None:
            return super().parameter_groups()
        inside = {id(parameter) for parameter in backbone.parameters()}
        head = [parameter for parameter in self.network.parameters() if id(parameter) not in inside]
        return backbone_and_head(self.network, head, self.options.head_lr)


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels whose target is not `IGNORE`; 0 where there is none.

    logits: (N, classes, H, W); targets: (N, H, W) -> (). `ValueError` for the logits of another kind of network.
    """
    if logits.ndim != 4:
        raise ValueError(
            f"the network answers {tuple(logits.shape)} for a batch, segmentation needs (N, classes, H, W): take one "
            "for segmentation (dla60x_elastic_seg, deeplabv3, smp_fpn, ...)"
        )
    total = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum")
    return total / (targets != IGNORE).sum().clamp(min=1)


def _pairs(options: Options, data: str, split: str) -> Pairs:
    return voc_pairs(data, split) if options.dataset == "voc" else folder_pairs(data, split, options.layout)


def build(recipe: Recipe, data: str, settings: Settings) -> Job:
    """Photos with masks from `data`, and the network for their classes."""
    options: Options = task_options(recipe)
    labels = options.labels(data)
    train_pairs, val_pairs = (_pairs(options, data, split) for split in (options.train_split, options.val_split))
    seen_as = {"max_value": options.max_value, "background": options.background}
    network, card = make_network(recipe, labels.classes, **seen_as)
    if unseen := classes_not_seen(train_pairs.masks, labels):
        warn(unseen)
    for notice in common_files(train_pairs.images, val_pairs.images):
        warn(notice)
    known = {"dataset": options.dataset, **labels.to_dict(), "test_size": options.test_size, **asdict(options.layout)}
    card = replace(card, info={**card.info, LABELS_KEY: known})
    spec = card.input
    read = _reading(spec)
    train = MaskSamples(train_pairs, labels, size=spec.size, scale=options.scale, geometry=options.geometry(), **read)
    val = MaskSamples(val_pairs, labels, size=spec.size if options.test_size == "crop" else None, **read)
    val.check_batchable(recipe.val_batch_size or recipe.batch_size // recipe.accumulate)
    if options.checkpoint_blocks:
        checkpoint_blocks(backbone_of(network) or network)
    if options.sync_norms and settings.processes > 1:
        if settings.accelerator == "cpu" or not torch.cuda.is_available():
            raise Refused("options.sync_norms needs GPUs: set options.sync_norms=false", "options", "sync_norms")
        network = convert_sync_batchnorm(network)
    task = Segmentation(network, labels, options)
    task.spec = spec
    task.on_sheet = frozenset(np.linspace(0, len(val) - 1, min(options.sheet, len(val))).round().astype(int).tolist())
    return Job(task, card, train, val)


def _reading(spec: InputSpec) -> dict[str, Any]:
    """What `MaskSamples` needs of a network's input."""
    return {"mean": spec.mean, "std": spec.std, "reading": reading_of(spec)}


def build_test(
    network: nn.Module, card: NetworkCard, data: str, split: str, options: TestOptions
) -> tuple[Task, MaskSamples]:
    """The task and a split to test it on. `ValueError` where the data's classes are not the checkpoint's."""
    labels, known = card_labels(card)
    layout = {key: known[key] for key in LAYOUT_KEYS if key in known}
    own = Options(dataset=known.get("dataset", "folder"), **layout)
    if own.dataset == "folder" and (Path(data) / LABELS_FILE).is_file():
        theirs = read_labels(Path(data))
        if theirs.classes != card.classes:
            raise ValueError(
                f"{data} has the classes {', '.join(theirs.classes)}, the checkpoint of {card.network} "
                f"{', '.join(card.classes)}"
            )
        labels = theirs
    spec = card.input
    side = options.image_size
    size = both_sides(side) if side else spec.size if known.get("test_size", "crop") == "crop" else None
    samples = MaskSamples(_pairs(own, data, split), labels, size=size, **_reading(spec))
    samples.check_batchable(options.batch_size)
    task = Segmentation(network, labels, own)
    task.spec = spec
    return task, samples
