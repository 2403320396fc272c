"""What a finished run did, for the terminal, a notebook and summary.json."""

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

from elastic_cnn.tasks.loop import Loop


@dataclass(frozen=True)
class Summary:
    """What a finished run did; summary.json holds the same. Times are of all its stretches where it was resumed."""

    network: str
    task: str
    metric: str
    best: float | None
    best_epoch: int
    best_results: dict[str, Any]
    last_results: dict[str, Any]
    parameters: int
    epochs: int
    epochs_done: int
    steps: int
    seconds: float
    images_per_s: float
    train_images: int
    val_images: int
    train_counts: dict[str, int]
    val_counts: dict[str, int]
    unreadable: int
    seed: int
    precision: str
    headline: str
    files: dict[str, str] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><td>{escape(line)}</td></tr>" for line in self.lines())
        return f"<table>{rows}</table>"

    @property
    def folder(self) -> Path:
        """The run folder, in which the files lie."""
        return Path(self.files["summary.json"]).parent

    def lines(self) -> list[str]:
        """For the terminal."""
        best = "none" if self.best is None else f"in epoch {self.best_epoch} of {self.epochs}: {self.headline}"
        left_out = f"; {self.unreadable} unreadable image(s) left out" if self.unreadable else ""
        return [
            f"{self.network}: best {best}; {self.seconds:.0f} s ({self.images_per_s:.0f} images/s)" + left_out,
            *wrap(f"in {self.folder}: {', '.join(self.files)}", 110, subsequent_indent="  ", break_on_hyphens=False),
        ]


def summarise(loop: Loop, unreadable: int) -> Summary:
    """Of a run that came to its end; unreadable: how many files of all processes could not be read."""
    folder, recipe, keeper = loop.folder, loop.recipe, loop.keeper
    keeper.restore(loop.fabric.broadcast(keeper.state()))  # the first process alone keeps weights
    files = {name: str(path) for name in folder.FILES if (path := folder.path / name).exists()}
    files["summary.json"] = str(folder.summary_json)
    return Summary(
        network=loop.job.card.network,
        task=recipe.task,
        metric=loop.task.metric,
        best=keeper.best,
        best_epoch=keeper.best_epoch,
        best_results=keeper.best_results,
        last_results=loop.results,
        parameters=sum(p.numel() for p in loop.task.network.parameters()),
        epochs=recipe.epochs,
        epochs_done=loop.epoch,
        steps=loop.total_step,
        seconds=round(loop.seconds, 1),
        images_per_s=round(loop.images / max(loop.seconds, 1e-9), 1),
        train_images=len(loop.job.train),
        val_images=len(loop.job.val),
        train_counts=getattr(loop.job.train, "counts", {}),
        val_counts=getattr(loop.job.val, "counts", {}),
        unreadable=unreadable,
        seed=recipe.seed,
        precision=recipe.precision,
        headline=loop.task.headline(keeper.best_results) if keeper.best_results else "",
        files=files,
    )
