"""What a run would be trained and tested on: found, read once and told; nothing is trained."""

from dataclasses import replace
from pathlib import Path

from elastic_cnn.data.sampler import TestBatches, closed, make_loader
from elastic_cnn.tasks.console import Console, Unreadable
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.spec import task_spec

AT_ONCE = 32  # samples


def check_data(recipe: Recipe, data: str | Path, settings: Settings, console: Console) -> int:
    """Say what `recipe` finds in `data`, read every training and validation sample once, warn of each that is broken.

    Nothing is written or downloaded. Returns the number of files that cannot be read. Raises `ValueError` where a
    training on this data would, or nothing can be read, and `UnreadableSample` at the first broken file under
    `settings.strict`.
    """
    weights = None if recipe.weights == "timm" else recipe.weights
    plain = replace(recipe, elastic=False, convert=None, weights=weights)
    job = task_spec(recipe.task).code("build")(plain, str(data), settings)
    for samples in (job.train, job.val):
        console.tell_found(samples)
    broken, total = Unreadable(settings.strict), len(job.train) + len(job.val)
    with console.bar("reading", total) as bar:
        for samples in (job.train, job.val):
            batches = TestBatches(len(samples), AT_ONCE)
            loader = make_loader(samples, batches, seed=recipe.seed, workers=settings.workers)
            with closed(loader):
                for part in loader:
                    bar.update(broken.take(part, console) + len(part.get("image", ())))
    bad = len(broken.paths)
    if bad == total:
        raise ValueError(f"none of the {total} photos can be read, the last being {broken.last}")
    console.line(f"{total - bad} of {total} photos can be read" + (f", {bad} are left out" if bad else ""))
    return bad
