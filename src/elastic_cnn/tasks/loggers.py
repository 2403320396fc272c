"""Other places that hear what a run's logs hold: Weights & Biases and MLflow, by Lightning's own loggers."""

import os
from collections.abc import Sequence
from typing import Any

from elastic_cnn.extras import require
from elastic_cnn.hints import did_you_mean
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import LOGGERS


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
            place = {}
            if "MLFLOW_TRACKING_URI" not in os.environ:
                place = {"save_dir": str(folder.path / "mlruns")}
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks whether a folder is meant
            logger = loggers.MLFlowLogger(experiment_name="elastic", run_name=folder.path.resolve().name, **place)
        logger.log_hyperparams(recipe.to_dict())
        found.append(logger)
    return found
