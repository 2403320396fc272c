"""What a segmentation network says of every photo of a split: the explorer's table, and the masks beside it.

A row a photo: the classes of its mask and of the prediction, the largest first; as confidence the probability of the
chosen class, a mean over pixels; the mean IoU of the classes in either; as features the part of the photo that each
class has in the prediction. Masks are palette pictures of at most `SIDE` pixels, in which void is transparent.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from elastic_cnn.analysis.segment import to_pixels
from elastic_cnn.data.mask_pictures import colour_mask, save_picture
from elastic_cnn.data.mask_transforms import IGNORE, normalize
from elastic_cnn.data.masks import Labels, MaskSamples
from elastic_cnn.data.sampler import UnreadableSample
from elastic_cnn.data.transforms import Picture
from elastic_cnn.files import naming, refuse_to_overwrite, refuse_unwritable_folder
from elastic_cnn.nn.compare import require_finite
from elastic_cnn.policy import fingerprint
from elastic_cnn.policy.collect import Collection
from elastic_cnn.policy.mask_places import MASKS, mask_file
from elastic_cnn.policy.photos import below
from elastic_cnn.policy.run import Subject
from elastic_cnn.policy.scores import is_elastic, record_if_elastic, record_policy
from elastic_cnn.policy.table import PolicyInfo, read_info, read_policy, write_part
from elastic_cnn.tasks.mask_labels import card_labels
from elastic_cnn.tasks.settings import TestOptions
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo.checkpoint import InputSpec, read_card

SIDE = 640  # pixels
RIGHT, WRONG = 0, 1  # of the masks of errors
ERRORS = ((0, 0, 0), (214, 40, 57))


def collect_masks(
    subject: Subject,
    data: str,
    out: str | Path,
    *,
    split: str = "val",
    overwrite: bool = False,
    reuse: bool = False,
    progress: Callable[[int], object] = lambda count: None,
    started: Callable[[MaskSamples], object] = lambda samples: None,
    say: Callable[[str], object] = lambda warning: None,
) -> Collection:
    """Write `out/policy.parquet` and `out/masks` for the photos of a split of `data`.

    reuse: a table of the same network about the same photos is kept. Photos that cannot be read are left out. Raises
    `ValueError` where the table exists, the data does not fit, or no photo can be read.
    """
    began, out = time.monotonic(), refuse_unwritable_folder(out)
    card = read_card(subject.checkpoint)
    build = task_spec(subject.task).code("build_test")
    _, samples = build(subject.network, card, data, split, TestOptions(batch_size=1))
    labels = card_labels(card)[0]
    info = _info(subject, samples, data, split, labels)
    table = out / "policy.parquet"
    if reuse and table.is_file() and (found := read_info(table)).source == info.source:
        return Collection(table, found, len(read_policy(table)), 0, [], 0.0)
    if not overwrite:
        refuse_to_overwrite(table, "choose another output, or pass --overwrite to collect anew")
    started(samples)
    shutil.rmtree(out / MASKS, ignore_errors=True)
    table.unlink(missing_ok=True)
    rows, unreadable = [], []
    with record_if_elastic(subject.network) as policy, torch.inference_mode():
        subject.network.eval()
        for index in range(len(samples)):
            try:
                photo, truth = samples.read(index)
            except UnreadableSample as error:
                unreadable.append((error.path, error.reason))
                say(f"left out: {error}")
            else:
                with naming(subject.checkpoint):
                    predicted, confidence = _predict(subject.network, photo, card.input)
                row = _row(truth, predicted, labels.classes) | {"id": index, "confidence": confidence}
                row["path"] = below(samples.path(index), info.data_root)
                row["scores"] = policy.scores()[0].tolist() if policy is not None else []
                rows.append(row)
                _save(out, index, truth, predicted, labels)
            progress(1)
    if not rows:
        raise ValueError(f"none of the {len(samples)} photos could be read; the first: {': '.join(unreadable[0])}")
    write_part(table, rows, info)
    return Collection(table, info, len(rows), 0, unreadable, time.monotonic() - began)


def _info(subject: Subject, samples: MaskSamples, data: str, split: str, labels: Labels) -> PolicyInfo:
    blocks: tuple[Any, ...] = ()
    if is_elastic(subject.network):
        height, width = subject.preparation["size"]
        images = torch.zeros(1, len(subject.preparation["mean"]), height, width)
        with record_policy(subject.network) as policy, torch.inference_mode():
            subject.network(images)
            blocks = tuple(policy.blocks)
    source = {"split": split, "photos": fingerprint.of_photos(samples), "masks": True}
    return PolicyInfo(
        task=subject.task,
        classes=labels.classes,
        blocks=blocks,
        network=subject.name,
        checkpoint=str(subject.checkpoint),
        data_root=str(Path(data).resolve()),
        input=dict(subject.preparation),
        source={**source, "weights": fingerprint.of_file(subject.checkpoint)},
        features=len(labels.classes),
        palette=tuple(labels.palette),
    )


def _predict(network: nn.Module, photo: Picture, spec: InputSpec) -> tuple[np.ndarray, float]:
    """The class of every pixel, uint8 (H, W), and the mean probability of those classes."""
    images = normalize(to_pixels(photo), spec.mean, spec.std)[None]  # (1, C, H, W)
    logits = network(images)[0].float()
    require_finite(logits)
    chances = logits.softmax(0)  # (classes, H, W)
    best, classes = chances.max(0)
    return classes.to(torch.uint8).numpy(), float(best.mean())


def _row(truth: np.ndarray, predicted: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Masks (H, W) -> what the table says of them; void does not count."""
    counted = truth != IGNORE
    count = len(classes)
    pairs = count * truth[counted].astype(np.int64) + predicted[counted]
    both = np.bincount(pairs, minlength=count * count).reshape(count, count)  # rows are the truth
    of_truth, of_prediction, hits = both.sum(1), both.sum(0), both.diagonal()
    either = of_truth + of_prediction - hits
    there = either > 0
    parts = np.bincount(predicted.ravel(), minlength=count) / predicted.size
    return {
        "label": [classes[number] for number in np.argsort(-of_truth, kind="stable") if of_truth[number]],
        "prediction": [classes[number] for number in np.argsort(-parts, kind="stable") if parts[number]],
        "correct": None,
        "object_sizes": None,
        "features": parts.tolist(),
        "iou": float((hits[there] / either[there]).mean()) if there.any() else None,
    }


def _save(out: Path, index: int, truth: np.ndarray, predicted: np.ndarray, labels: Labels) -> None:
    wrong = np.where(truth == IGNORE, RIGHT, truth != predicted).astype(np.uint8)
    for kind, mask, palette, clear in (
        ("truth", truth, labels.palette, IGNORE),
        ("prediction", predicted, labels.palette, IGNORE),
        ("errors", wrong, ERRORS, RIGHT),
    ):
        picture = colour_mask(mask, palette)
        picture.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.info["transparency"] = clear
        place = mask_file(out / MASKS, kind, index)
        place.parent.mkdir(parents=True, exist_ok=True)
        save_picture(picture, place)
