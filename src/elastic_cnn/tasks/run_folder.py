"""The folder of a training run: what lies in it, who works in it, and its state for a resume, never half written."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from elastic_cnn.files import atomic_write, locked, not_written, refuse_unwritable_folder, write_text
from elastic_cnn.tasks import strict
from elastic_cnn.tasks.failures import reader_ended
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.text import listed

STATE_VERSION = 1
SAME_ANSWERS = "same_answers"  # the metric of runs whose photos have no labels


class RunFolder:
    """Names of the files of a run, and its state.

    last.ckpt: everything that a resume needs; previous.ckpt: the one before, should the last be damaged.
    best.safetensors, last.safetensors: weights with their card, for every other command.
    data.json: where the data lies; split.csv: which photos are tested on, where the run divided them;
    start.safetensors: the network that was converted on the run's photos, before the first step.
    """

    EXTENDABLE = ("epochs", "patience", "val_every", "log_every")  # keys that may change when a run goes on

    FILES = (
        "recipe.yaml", "last.ckpt", "previous.ckpt", "best.safetensors", "last.safetensors", "train.csv", "val.csv",
        "summary.json", "tensorboard", "pictures", "data.json", "split.csv", "start.safetensors",
        "curves.png", "wandb", "mlruns",
    )  # fmt: skip

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __getattr__(self, name: str) -> Path:
        """`folder.last_ckpt` is the path of last.ckpt, and so on for all `FILES`."""
        for file in RunFolder.FILES:
            if file.replace(".", "_") == name:
                return self.path / file
        raise AttributeError(name)

    def refuse_taken(self, resume: bool, overwrite: bool) -> list[str]:
        """Which of a run's files are there. `ValueError` where a run cannot begin here: there are some (and neither
        `resume` nor `overwrite`), or nothing can be written; to be asked before any work is done."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: choose another folder")
        refuse_unwritable_folder(self.path)
        present = [name for name in self.FILES if (self.path / name).exists()]
        if present and not overwrite and not (resume and self.recipe_yaml.is_file()):
            raise ValueError(
                f"{self.path} holds a run already ({listed(present, 2)}): "
                "--resume goes on with it, --overwrite starts anew, or choose another folder"
            )
        return present

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Within the block no other process may train here. `ValueError` where one does, named by its number."""
        with locked(self.path / ".lock") as holder:
            if holder is not None:
                raise ValueError(
                    f"{self.path} is being trained in by {holder}: wait for its end, or choose another folder"
                )
            yield

    def prepare(
        self,
        recipe: Recipe,
        resume: bool,
        overwrite: bool,
        files: Mapping[str, Callable[[Path], object]] = MappingProxyType({}),
        extend: bool = False,
    ) -> None:
        """Make the folder ready for a run of `recipe`, write the `files` that are missing, and recipe.yaml.

        extend: a run that goes on may have other values of the keys `EXTENDABLE`.

        Raises `ValueError` where it holds a run (and neither `resume` nor `overwrite`), or another recipe's (resume).
        """
        present = self.refuse_taken(resume, overwrite)
        if resume and self.recipe_yaml.is_file():
            self._check_recipe(recipe, self.EXTENDABLE if extend else ())
        elif present:
            self.clear()
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(".*.*"):  # temporary files of a run that was killed while writing
            if any(leftover.name.startswith(f".{name}.") for name in self.FILES):
                try:
                    leftover.unlink(missing_ok=True)
                except OSError as error:
                    raise not_written(self.path, error) from error
        for name, write in files.items():
            if not (self.path / name).exists():
                write(self.path / name)
        write_text(self.recipe_yaml, recipe.to_yaml())

    def clear(self) -> None:
        """Remove a run's own files, and nothing else."""
        for name in self.FILES:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def recipe(self) -> Recipe:
        """The run's recipe. `ValueError` where the folder holds none."""
        if not self.recipe_yaml.is_file():
            raise ValueError(f"{self.path} holds no run (no recipe.yaml): name a recipe and its data to start one")
        values, source = strict.read_yaml(self.recipe_yaml)
        return strict.build(Recipe, values, source)

    def own_data(self) -> str:
        """Where the run's data lies: the list of its division, if it made one. `ValueError` where that is not known."""
        if self.split_csv.is_file():
            return str(self.split_csv)
        return self.data()

    def own_places(self) -> dict[str, str]:
        """The annotation file and the folder of photos of its data, where the run was told them and no checkpoint
        keeps them (those that do not lie below its data)."""
        options = self.recipe().options
        given = {name: str(options.get(name) or "") for name in ("annotations", "images")}
        return {name: place for name, place in given.items() if Path(place).is_absolute()}

    def data(self) -> str:
        """What the run was given as its data. `ValueError` where that is not known."""
        try:
            place = json.loads(self.data_json.read_text(encoding="utf-8"))["data"]
            if not isinstance(place, str):
                raise TypeError(f"{place!r} is no place")
            place.encode()  # half a character is in no file's name
            return place
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{self.path} does not say where its data lies: give --data DIR") from error

    def _check_recipe(self, recipe: Recipe, may_change: Sequence[str]) -> None:
        before, now = self.recipe().to_dict(), recipe.to_dict()
        other = [key for key in now if before[key] != now[key]]
        changed = [f"{key}={before[key]!r} (now {now[key]!r})" for key in other if key not in may_change]
        if changed:
            longer = " (--extend epochs=N goes on for longer)" if other == ["epochs"] else ""
            raise ValueError(
                f"{self.path} was started with {', '.join(changed)}: resume with the same recipe and overrides"
                f"{longer}, or start a new run from its weights with weights=RUN_DIR"
            )

    def save_state(self, state: dict[str, Any]) -> None:
        """Write last.ckpt (tensors and primitives alone); the one before stays as previous.ckpt."""
        try:
            with atomic_write(self.last_ckpt) as temporary:
                with temporary.open("wb") as file:
                    torch.save({"version": STATE_VERSION, **state}, file)
                if self.last_ckpt.exists():
                    spare = self.path / ".previous.ckpt.link"
                    spare.unlink(missing_ok=True)
                    os.link(self.last_ckpt, spare)
                    os.replace(spare, self.previous_ckpt)
                    spare.unlink(missing_ok=True)  # it stays where both were the same file (after a kill in between)
        except (RuntimeError, OSError) as error:  # torch's zip writer hides what the disk said in the error's context
            if reader_ended(error):  # meanwhile: not the disk's fault
                raise
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            reason = (cause.strerror if isinstance(cause, OSError) else None) or cause
            raise OSError(
                f"{self.last_ckpt} could not be written ({reason}); "
                "the one before is kept: mend that, and go on with --resume"
            ) from error

    def load_state(self) -> tuple[Path, dict[str, Any], list[str]] | None:
        """The newest state that is whole, its file, and a warning for each damaged one; None where none was saved."""
        warnings: list[str] = []
        for path in (self.last_ckpt, self.previous_ckpt):
            if not path.exists():
                continue
            try:
                return path, read_state(path), warnings
            except ValueError as error:
                warnings.append(f"{error}; taking the one before")
        if warnings:
            raise ValueError(f"no whole state in {self.path}: {'; '.join(warnings)}")
        return None


def data_of_run(checkpoint: str | Path) -> tuple[str, dict[str, str]]:
    """The data of the run that a checkpoint lies in, or that it is, and its own places (`RunFolder.own_places`).

    `ValueError` where it is in none.
    """
    place = Path(checkpoint)
    folder = RunFolder(place if place.is_dir() else place.parent)
    return folder.own_data(), folder.own_places()


def data_of_unlabelled(checkpoint: str | Path) -> str | None:
    """The data of the run that a checkpoint lies in, or that it is, where a teacher's answers stood for its labels."""
    place = Path(checkpoint)
    folder = RunFolder(place if place.is_dir() else place.parent)
    try:
        metric = json.loads(folder.summary_json.read_text(encoding="utf-8"))["metric"]
        return folder.own_data() if metric == SAME_ANSWERS else None
    except (OSError, ValueError, KeyError, TypeError):  # no run, or none that ended
        return None


def read_state(path: Path) -> dict[str, Any]:
    """A state as `save_state` wrote it; never runs code. `ValueError` where it is damaged, foreign or newer."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # compares every entry with its checksum
        if damaged is not None:
            raise ValueError(f"{path} is damaged (its entry {damaged} fails its checksum)")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    except Exception as error:  # an unpickler meets what it must not load
        raise ValueError(f"{path} is not a state of a training run ({type(error).__name__})") from error
    version = state.get("version") if isinstance(state, dict) else None
    if not isinstance(version, int) or version > STATE_VERSION:
        raise ValueError(f"{path} has the version {version!r}, this package reads up to {STATE_VERSION}")
    return state
