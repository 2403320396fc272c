"""What a task is: one value that answers whatever the package asks about a task by its name.

A task of one's own is one file: its data, its `Task` (`training.py` tells the contract), and

    register_task(TaskSpec("counting", options=Options, build=build, build_test=build_test, ...))

after which recipes, checkpoints, exports and policy tables of it work like those of the three built in. Whoever reads
its files in another process imports that file first; the command does so by itself for installed packages that name
the file as an entry point of the group `elastic_cnn.tasks`. This module imports nothing of ours, so every room may ask
it.
"""

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Code = Callable[..., Any] | str  # or `MODULE:NAME`, imported when it is used


@dataclass(frozen=True)
class TaskSpec:
    """One kind of job. Code may be given as the text `MODULE:NAME`, so that a card is read without Lightning.

    name: in recipes, cards and tables. options: the frozen dataclass of a recipe's `options`.
    build: (recipe, data, settings) -> Job. build_test: (network, card, data, split, options) -> (Task, samples).
    activation: in words, what turns the network's logits into probabilities (written into exported files).
    probabilities: logits (N, C, ...) -> probabilities of that shape.
    answer: (probabilities of one image (C,), classes, threshold) -> the answer, or with `several` a list of answers.
    agreement: (logits, expected logits) -> part of the answers that are the same, for files of 8 bits.
    photos: (data, split, classes, transform, places) -> the photos of a policy table; None: it has no policy tables.
    several: an image may have several answers, or none. per_pixel: the network answers for pixels, not for images.
    top1: whether top-1 accuracy is a score of it. places: whether data may be an annotation file and a folder.
    scores: (result, title) of the resolution test, the first two are drawn; empty: there is none.
    pipeline: the Hub's word for it.
    teaching: (logits, a teacher's logits), both over the temperature -> the loss of distillation; None: there is none.
    studies: (kind of data, its `study.kinds.DataKind`) of what studies train it on.
    """

    name: str
    options: Code
    build: Code
    build_test: Code
    activation: str
    probabilities: Code = "elastic_cnn.policy.answers:softmax"
    answer: Code = "elastic_cnn.policy.answers:most_probable"
    agreement: Code = "elastic_cnn.export.check:same_best"
    photos: Code | None = None
    several: bool = False
    per_pixel: bool = False
    top1: bool = False
    places: bool = False
    scores: tuple[tuple[str, str], ...] = ()
    pipeline: str = "image-classification"
    teaching: Code | None = None
    studies: tuple[tuple[str, Any], ...] = ()

    def code(self, field: str) -> Any:
        """The function or class in a field, imported where it is told by name."""
        return loaded(getattr(self, field))


def loaded(code: Code) -> Any:
    """What `MODULE:NAME` means; anything but text as it is."""
    if not isinstance(code, str):
        return code
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)


_HERE, _KINDS = "elastic_cnn.tasks.", "elastic_cnn.study.kinds:"
_SPECS = (
    TaskSpec(
        "classification",
        options=f"{_HERE}classification:Options",
        build=f"{_HERE}classification:build",
        build_test=f"{_HERE}classification:build_test",
        activation="softmax over the classes",
        photos="elastic_cnn.policy.photos:folder_photos",
        top1=True,
        scores=(("top1", "top-1 accuracy"), ("top5", "top-5 accuracy")),
        teaching=f"{_HERE}distill:by_classes",
        studies=(("digits", f"{_KINDS}DIGITS"), ("photos", f"{_KINDS}PHOTOS")),
    ),
    TaskSpec(
        "multilabel",
        options=f"{_HERE}multilabel:Options",
        build=f"{_HERE}multilabel:build",
        build_test=f"{_HERE}multilabel:build_test",
        activation="sigmoid of each class",
        probabilities="elastic_cnn.policy.answers:sigmoid",
        answer="elastic_cnn.policy.answers:above_threshold",
        agreement="elastic_cnn.export.check:same_signs",
        photos="elastic_cnn.policy.photos:coco_photos",
        several=True,
        places=True,
        scores=(
            ("f1_per_class", "F1 per class"),
            ("f1_overall", "F1 overall"),
            ("f1_overall_small", "F1 overall, small objects"),
            ("f1_overall_medium", "F1 overall, medium objects"),
            ("f1_overall_large", "F1 overall, large objects"),
            ("map", "mAP"),
        ),
        teaching=f"{_HERE}distill:by_labels",
        studies=(("coco", f"{_KINDS}COCO"),),
    ),
    TaskSpec(
        "segmentation",
        options=f"{_HERE}segmentation:Options",
        build=f"{_HERE}segmentation:build",
        build_test=f"{_HERE}segmentation:build_test",
        activation="softmax over the classes at each pixel",
        per_pixel=True,
        pipeline="image-segmentation",
        teaching=f"{_HERE}distill:by_classes",
        studies=(("masks", f"{_KINDS}MASKS"),),
    ),
)
_known = {spec.name: spec for spec in _SPECS}


def register_task(spec: TaskSpec) -> TaskSpec:
    """Make a task known by its name. `ValueError` where another has that name."""
    if _known.get(spec.name, spec) != spec:
        raise ValueError(f"a task named {spec.name!r} is known already: give yours another name")
    _known[spec.name] = spec
    return spec


@functools.cache
def _import_installed() -> None:
    """Import the tasks of installed packages, once a process. `ValueError` names one that cannot be imported."""
    for point in importlib.metadata.entry_points(group="elastic_cnn.tasks"):
        try:
            point.load()
        except Exception as error:  # code of others
            told = f"{type(error).__name__}: {error}"
            raise ValueError(f"the task {point.name} ({point.value}) cannot be imported: {told}") from error


def task_names(where: Callable[[TaskSpec], bool] = lambda spec: True) -> list[str]:
    """The names of the tasks for which `where` holds."""
    _import_installed()
    return [spec.name for spec in _known.values() if where(spec)]


def task_spec(name: str) -> TaskSpec:
    """The task of that name. `ValueError` for an unknown one."""
    if name not in _known:
        _import_installed()
    if name not in _known:
        raise ValueError(
            f"unknown task {name!r}; choose from {', '.join(_known)} (for your own, import the file that registers it, "
            "or install it with the entry point elastic_cnn.tasks)"
        )
    return _known[name]


def study_tasks() -> dict[str, str]:
    """{kind of data that studies know: the name of the task that is trained on it}."""
    _import_installed()
    return {kind: spec.name for spec in _known.values() for kind, _ in spec.studies}


def study_kind(kind: str) -> Any:
    """The `study.kinds.DataKind` of that name. `KeyError` for one that `study_tasks` lacks."""
    return loaded({name: value for spec in _known.values() for name, value in spec.studies}[kind])
