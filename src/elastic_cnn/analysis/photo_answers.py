"""What a network says of every photo, into a table, with a bar: what `elastic policy`, `elastic explore` and
`elastic_cnn.explore` share."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from elastic_cnn.policy.collect import Collection, Photos, Settings
from elastic_cnn.policy.run import Subject, collect_policy
from elastic_cnn.tasks.console import Console
from elastic_cnn.tasks.spec import task_spec


def collect_with_bar(
    console: Console, title: str, subject: Subject, data: str, out: Path, processes: int = 1, **options: Any
) -> Collection:
    """`collect_policy` with these options; says what was found, and at its end what was left out.

    processes: how many share the photos, so that the bar of the first counts for all.
    """
    with console.bar(title, 0) as bar:

        def start(photos: Photos) -> None:
            console.tell_found(photos)
            bar.total = len(photos)
            bar.refresh()

        done = collect_policy(
            subject, data, out, progress=lambda count: bar.update(count * processes), started=start, **options
        )
    if console.shown:
        for path, reason in done.unreadable:
            console.warn(f"left out: {path} cannot be read: {reason}")
    return done


def collect_answers(
    console: Console, subject: Subject, data: str, out: Path, *, split: str = "val", against: Subject | None = None,
    places: Mapping[str, str] = MappingProxyType({}), settings: Settings | None = None, overwrite: bool = False,
    reuse: bool = False,
) -> Collection:  # fmt: skip
    """What the explorer shows: a classifier's answers, or a segmentation network's with the masks beside them.

    reuse: a table of the same networks about the same photos is kept. Raises `ValueError` as `collect_policy` does,
    and for a segmentation network `against` another.
    """
    if not task_spec(subject.task).per_pixel:
        return collect_with_bar(
            console, "answers", subject, data, out, split=split, against=against, places=places, settings=settings,
            overwrite=overwrite, plain=True, reuse=reuse,
        )  # fmt: skip
    from elastic_cnn.extras import require

    require("lightning", "train")
    from elastic_cnn.analysis.segment_answers import collect_masks

    if against is not None:
        raise ValueError("against is for classifiers: a segmentation network is looked at alone")
    with console.bar("masks", 0) as bar:
        return collect_masks(
            subject, data, out, split=split, overwrite=overwrite, reuse=reuse, progress=bar.update,
            started=lambda samples: bar.reset(len(samples)), say=console.warn,
        )  # fmt: skip
