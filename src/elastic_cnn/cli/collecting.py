"""Answers and scale policies into a table, with a bar: what `elastic policy` and `elastic explore` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elastic_cnn.policy.collect import Collection, Photos
    from elastic_cnn.policy.run import Subject
    from elastic_cnn.tasks.console import Console


def collect_with_bar(
    console: "Console", title: str, subject: "Subject", data: str, out: Path, processes: int = 1, **options: Any
) -> "Collection":
    """`collect_policy` with these options; says what was found, and at its end what was left out.

    processes: how many share the photos, so that the bar of the first counts for all.
    """
    from elastic_cnn.policy.run import collect_policy

    with console.bar(title, 0) as bar:

        def start(photos: "Photos") -> None:
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
