"""The jobs a network is trained for, and the one engine that trains and tests them all.

A task is a module named in `TASKS`; `elastic_cnn.tasks.training` says what it has to provide. Modules are imported when
they are used, so that recipes can be read without Lightning.
"""

import importlib
from types import ModuleType

TASKS = {
    "classification": "elastic_cnn.tasks.classification",
    "multilabel": "elastic_cnn.tasks.multilabel",
    "segmentation": "elastic_cnn.tasks.segmentation",
}


def task_module(name: str) -> ModuleType:
    """The module of a task. `ValueError` for an unknown name."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; choose from {', '.join(TASKS)}")
    return importlib.import_module(TASKS[name])
