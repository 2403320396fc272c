"""Other places that hear what a run's logs hold: Weights & Biases and MLflow, by Lightning's own loggers."""

import os
from collections.abc import Sequence
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import LOGGERS

_stores_of_runs: set[str] = set()  # addresses that runs of this process have given to MLflow


def make_loggers(names: Sequence[str], folder: RunFolder, recipe: Recipe) -> list[Any]:
    """Lightning's loggers by name, told the recipe. A run that goes on reports to the same run where it can.

    wandb: the project `elastic`, offline or online as its own variables say, files in the run's folder. mlflow: as
    MLFLOW_TRACKING_URI says, else in the folder `mlruns` of the run. Raises `ValueError` for another name,
    and `MissingExtra`.
    """
    found = []
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"unknown logger {name!r}{did_you_mean(name, LOGGERS, otherwise_all=True)}")
        require(name, "loggers")
        loggers: Any = require("lightning.pytorch.loggers", "train")
        if name == "wandb":
            identity = f"{folder.path.resolve().name}-{recipe.seed}"
            logger = loggers.WandbLogger(
                project="elastic", name=folder.path.resolve().name, id=identity, resume="allow", save_dir=folder.path
            )
        else:
            logger = loggers.MLFlowLogger(
                experiment_name="elastic", run_name=folder.path.resolve().name, tracking_uri=_mlflow_store(folder)
            )
        logger.log_hyperparams(recipe.to_dict())
        found.append(logger)
    return found


def _mlflow_store(folder: RunFolder) -> str:
    """The address that MLFLOW_TRACKING_URI gives, else the run's own folder. MLflow itself sets that variable to where
    it last wrote: an earlier run of this process is no wish of the user's."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given and given not in _stores_of_runs:
        return given
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks whether a folder is meant
    place = folder.path.resolve() / "mlruns"
    # as MLflow lays a store out, which it does once a process: a run that is overwritten begins with an empty folder
    (place / ".trash").mkdir(parents=True, exist_ok=True)
    own = f"file:{place}"
    _stores_of_runs.add(own)
    return own
