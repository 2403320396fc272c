"""The whole of `elastic policy`: two loaded networks and a data set -> the table and its figures."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from elastic_cnn.data.remote import is_url
from elastic_cnn.files import refuse_unwritable_folder
from elastic_cnn.policy import fingerprint
from elastic_cnn.policy.collect import Collection, Photos, Settings, collect
from elastic_cnn.policy.photos import open_photos
from elastic_cnn.policy.table import PolicyInfo, read_info, read_policy
from elastic_cnn.tasks.spec import task_spec
from elastic_cnn.zoo.checkpoint import NetworkCard, checkpoint_file, load_checkpoint


@dataclass(frozen=True)
class Subject:
    """A network whose policy or answers are asked for: the network and what its checkpoint says of it.

    preparation: how a photo becomes its input (the fields of the checkpoint's `InputSpec`). thresholds: of the classes
    of a multi-label network, as they were tuned on its validation photos.
    """

    network: nn.Module
    name: str
    checkpoint: Path
    task: str
    classes: tuple[str, ...]
    preparation: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)


def load_subject(path: str | Path) -> Subject:
    """The network of a checkpoint or run folder, as the policy's functions take it.

    Raises `ValueError` where it is broken, or does not name the classes that its answers mean.
    """
    network, card = load_checkpoint(path)
    if not card.classes and not task_spec(card.task).per_pixel:
        raise ValueError(f"{path} does not name its classes, so its answers cannot be told: train or convert it anew")
    return Subject(
        network, card.network, checkpoint_file(path), card.task, card.classes, asdict(card.input), _thresholds(card)
    )


def _thresholds(card: NetworkCard) -> dict[str, float]:
    """{class: threshold} of a card, where it tells one for each class."""
    results = card.info.get("results")
    told = results.get("class_threshold") if isinstance(results, dict) else None
    if not isinstance(told, list) or len(told) != len(card.classes):
        return {}
    pairs = zip(card.classes, told, strict=True)
    return {name: float(value) for name, value in pairs if isinstance(value, int | float) and 0 <= value <= 1}


def collect_policy(
    subject: Subject,
    data: str,
    out: str | Path,
    *,
    split: str = "val",
    against: Subject | None = None,
    places: Mapping[str, str] = MappingProxyType({}),
    settings: Settings | None = None,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
    started: Callable[[Photos], object] | None = None,
    plain: bool = False,
    reuse: bool = False,
) -> Collection:
    """Collect the policy of `subject` on a split of `data` into `out/policy.parquet` (see `collect`).

    places: `annotations` and `images` of data in COCO's format (see `CocoPlaces`). plain: see `collect`. reuse: a table
    of the same network (or networks) about the same photos that lies in `out` is kept as it is. `started` is called
    with the photos before the first is read. Raises `ValueError` also where `against` is for another task, for other
    input, or shares no class with `subject`.
    """
    refuse_unwritable_folder(out)
    if against is not None:
        _check_pair(subject, against)
    photos = open_photos(data, split, subject.task, subject.classes, subject.preparation, places)
    source = {"split": split, "photos": fingerprint.of_photos(photos)}
    source["weights"] = fingerprint.of_file(subject.checkpoint)
    if against is not None:
        source["base_weights"] = fingerprint.of_file(against.checkpoint)
    info = PolicyInfo(
        task=subject.task,
        classes=subject.classes,
        blocks=(),
        network=subject.name,
        checkpoint=str(subject.checkpoint),
        data_root=photos.root if is_url(photos.root) else os.path.abspath(photos.root),
        input=dict(subject.preparation),
        against=None if against is None else str(against.checkpoint),
        size_unit="pixels",
        source=source,
    )
    table = Path(out) / "policy.parquet"
    if reuse and table.is_file() and (found := read_info(table)).source == info.source:
        return Collection(table, found, len(read_policy(table)), 0, [], 0.0)
    if started is not None:
        started(photos)
    return collect(
        subject.network,
        photos,
        out,
        info,
        base=None if against is None else against.network,
        base_classes=() if against is None else against.classes,
        settings=settings,
        overwrite=overwrite,
        progress=progress,
        plain=plain,
    )


def _check_pair(subject: Subject, base: Subject) -> None:
    if base.task != subject.task:
        raise ValueError(f"{base.checkpoint} is for {base.task}, {subject.checkpoint} for {subject.task}")
    if dict(base.preparation) != dict(subject.preparation):
        raise ValueError(
            f"{base.checkpoint} takes other input ({dict(base.preparation)}) than {subject.checkpoint} "
            f"({dict(subject.preparation)}): compare networks that were trained alike"
        )
    if not set(base.classes) & set(subject.classes):
        raise ValueError(f"{base.checkpoint} and {subject.checkpoint} have no class in common")
