"""What can be known to fail before the first run of a study begins, so that no training is lost to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from elastic_cnn.files import refuse_unwritable_folder
from elastic_cnn.study.grid import Run, Study
from elastic_cnn.study.results import check_table, read_record, record_files
from elastic_cnn.study.runner import Storage, all_runs, is_done, source_runs
from elastic_cnn.zoo.factory import create_model


def check(studies: Sequence[Study], storage: Storage) -> None:
    """`ValueError` names what is wrong: no such GPU, folders that cannot be written, broken
    records, and of runs that are missing: weights of no study, photos that are not there, arguments of networks."""
    if storage.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("there is no GPU here that torch can use: leave out --accelerator")
    for written in (storage.results, storage.work):
        refuse_unwritable_folder(written)
    check_table(storage.results)
    for path in record_files(storage.results):
        read_record(path)
    seen: set[Any] = set()
    for run in [run for run in all_runs(studies, storage.only) if not is_done(run, storage)]:
        try:
            source_runs(run)
        except ValueError as error:
            raise ValueError(f"{run.study.path}: networks.{run.network}.{error}") from error
        folder = run.material.folder
        if folder is not None and not (Path(storage.data) / folder).is_dir():
            raise ValueError(
                f"{run.study.path}: there is no folder {Path(storage.data) / folder} of photos: --data names the one "
                f"that holds {folder}"
            )
        if (run.study.name, run.cell) not in seen:
            seen.add((run.study.name, run.cell))
            _check_network(run)


def _check_network(run: Run) -> None:
    recipe = run.make_recipe()
    try:
        try:
            with torch.device("meta"):
                create_model(str(recipe.network), **recipe.network_kwargs)
        except NotImplementedError:  # a few networks compute with numbers while they are built
            create_model(str(recipe.network), **recipe.network_kwargs)
    except Exception as error:  # networks fail in many ways on arguments that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{run.study.path}: networks.{run.network}: {recipe.network} cannot be built with {recipe.network_kwargs}: "
            f"{reason}"
        ) from error
