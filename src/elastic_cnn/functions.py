"""What the commands do, as functions for a program or a notebook (`predict` lies in `policy`)."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from elastic_cnn.evaluation.report import Report
    from elastic_cnn.tasks.console import Console
    from elastic_cnn.tasks.recipe import Recipe
    from elastic_cnn.tasks.settings import Settings, TestOptions
    from elastic_cnn.tasks.summary import Summary
    from elastic_cnn.tasks.task import Job


def train(
    recipe: "Recipe | str | Path",
    data: str | Path,
    out: str | Path,
    settings: "Settings | None" = None,
    build: "Callable[[Recipe, str, Settings], Job] | None" = None,
    console: "Console | None" = None,
    **keys: Any,
) -> "Summary":
    """Train by a recipe on `data`, write everything into the folder `out`, return the summary (`tasks.training.train`).

    recipe: a `Recipe`, or one by name or file (`"finetune"`). keys: of the recipe, to change: `network="resnet50"`,
    `epochs=3`, `options={"split": 0.2}`; mappings change the keys that they name. Progress bars show where somebody
    looks, in notebooks too. Raises `ValueError` as `elastic train` says.
    """
    from elastic_cnn.extras import require

    require("lightning", "train")
    from elastic_cnn.tasks import training
    from elastic_cnn.tasks.recipe import read_recipe
    from elastic_cnn.tasks.strict import told_with_file

    source = None
    if isinstance(recipe, str | Path):
        recipe, source = read_recipe(recipe, list(_overrides(keys)))
    elif keys:
        recipe = replace(recipe, **keys)
    with told_with_file(source):
        return training.train(recipe, data, out, settings or training.DEFAULT_SETTINGS, build, console)


def _overrides(keys: dict[str, Any], before: str = "") -> list[str]:
    """`a.b=VALUE` for each value of nested mappings."""
    found = []
    for key, value in keys.items():
        if isinstance(value, dict) and value:
            found += _overrides(value, f"{before}{key}.")
        else:
            found.append(f"{before}{key}={json.dumps(os.fspath(value) if isinstance(value, Path) else value)}")
    return found


@overload
def evaluate(
    checkpoint: str | Path, data: str | Path | None = None, split: str = "val", options: "TestOptions | None" = None,
    settings: "Settings | None" = None, console: "Console | None" = None, *, report: None = None, against: None = None,
    overwrite: bool = False,
) -> dict[str, Any]: ...  # fmt: skip


@overload
def evaluate(
    checkpoint: str | Path, data: str | Path | None = None, split: str = "val", options: "TestOptions | None" = None,
    settings: "Settings | None" = None, console: "Console | None" = None, *, report: str | Path,
    against: str | Path | None = None, overwrite: bool = False,
) -> "Report": ...  # fmt: skip


def evaluate(
    checkpoint: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    options: "TestOptions | None" = None,
    settings: "Settings | None" = None,
    console: "Console | None" = None,
    *,
    report: str | Path | None = None,
    against: str | Path | None = None,
    overwrite: bool = False,
) -> "dict[str, Any] | Report":
    """Test a checkpoint, or a run folder's best, on a split of `data` (of a run folder's own by default).

    Without `report` the task's results (`tasks.training.evaluate`). report: a folder for a page and its tables, which
    is returned and shown by notebooks; against: another checkpoint, compared photo by photo there. Raises `ValueError`
    as `elastic eval` says.
    """
    from elastic_cnn.extras import require

    require("lightning", "train")
    from elastic_cnn.tasks import training
    from elastic_cnn.tasks.run_folder import data_of_run

    options, settings = options or training.DEFAULT_TEST, settings or training.DEFAULT_SETTINGS
    where, places = data_of_run(checkpoint) if data is None else (str(data), {})
    annotations, images = (places.get(name, getattr(options, name)) for name in ("annotations", "images"))
    options = replace(options, annotations=annotations, images=images)
    if report is None:
        if against is not None:
            raise ValueError("against goes with report: the comparison stands there")
        return training.evaluate(checkpoint, where, split, options, settings, console)
    require("matplotlib", "figures")
    from elastic_cnn.evaluation.collect import collect_answers
    from elastic_cnn.evaluation.report import refuse_taken, write_report

    refuse_taken(report, overwrite)
    answers = collect_answers(checkpoint, where, split, options, settings, console)
    base = None
    if against is not None:
        base = str(against), collect_answers(against, where, split, options, settings, console)
    return write_report(
        answers, report, data=where, split=split, checkpoint=str(checkpoint), base=base, tta=options.tta,
        overwrite=overwrite,
    )  # fmt: skip


@dataclass(frozen=True)
class Explorer:
    """An explorer that was built. index: its page, which opens from disk. photos: how many are in it."""

    index: Path
    photos: int

    def _repr_html_(self) -> str:
        page = escape(self.index.as_posix())
        return f"<p>{self.photos} photos: <a href='{page}' target='_blank'>open the explorer</a></p>"


def explore(
    checkpoint: str | Path,
    data: str | Path | None = None,
    out: str | Path = "explorer",
    split: str = "val",
    console: "Console | None" = None,
    *,
    against: str | Path | None = None,
    overwrite: bool = False,
) -> Explorer:
    """Collect answers and scale policy for every photo of a split and build the explorer of them in the folder `out`.

    checkpoint: of any classifier or segmentation network; one that is not elastic shows its answers and a map of its
    features, one that segments its masks. data: of a run folder its own by default. against: a classifier's base
    network, to compare with. Raises `ValueError` as `elastic explore` says.
    """
    from elastic_cnn.extras import require

    require("pyarrow", "figures")
    from elastic_cnn.analysis.photo_answers import collect_answers
    from elastic_cnn.policy.explorer import build_explorer
    from elastic_cnn.policy.explorer.build import check_out
    from elastic_cnn.policy.run import load_subject
    from elastic_cnn.tasks.console import Console
    from elastic_cnn.tasks.run_folder import data_of_run

    check_out(Path(out) / "page", overwrite)
    where, places = data_of_run(checkpoint) if data is None else (str(data), {})
    base = None if against is None else load_subject(against)
    out = Path(out)
    done = collect_answers(
        console or Console(), load_subject(checkpoint), where, out / "policy", split=split, against=base, places=places,
        overwrite=overwrite,
    )  # fmt: skip
    built = build_explorer(done.path, out / "page", overwrite=overwrite)
    return Explorer(built.index, built.rows)
