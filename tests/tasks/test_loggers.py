"""Other places that hear of a run: what they are told is what the CSV files hold."""

import csv
import io
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.tasks import loggers
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.run_log import Logged, RunLog
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import train


class Ear:
    """A logger with the methods of Lightning's that a run calls."""

    def __init__(self, **options) -> None:
        self.options, self.heard, self.ended, self.params = options, [], [], {}

    def log_hyperparams(self, params) -> None:
        self.params = params

    def log_metrics(self, metrics, step) -> None:
        self.heard += [(name, step, value) for name, value in metrics.items()]

    def finalize(self, status) -> None:
        self.ended.append(status)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_hears_every_row_and_the_recipe(name, recipe, photos, tmp_path, monkeypatch):
    made: list[Ear] = []
    kinds = SimpleNamespace(
        WandbLogger=lambda **options: made.append(Ear(**options)) or made[-1],
        MLFlowLogger=lambda **options: made.append(Ear(**options)) or made[-1],
    )
    known = {"lightning.pytorch.loggers": kinds}
    monkeypatch.setattr(loggers, "require", lambda module, extra: known.get(module))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(recipe, photos, tmp_path / "run", Settings(accelerator="cpu", loggers=(name,)))
    (ear,) = made
    assert ear.params == recipe.to_dict()
    assert ear.ended == ["success"]
    assert str(tmp_path / "run") in str(ear.options["save_dir" if name == "wandb" else "tracking_uri"])
    rows = []
    for split in ("train", "val"):
        with (tmp_path / "run" / f"{split}.csv").open() as file:
            for row in csv.DictReader(file):
                own = {f"{split}/{key}": value for key, value in row.items() if key not in ("epoch", "step")}
                rows += [(key, int(row["step"]), pytest.approx(float(value))) for key, value in own.items()]
    assert sorted(ear.heard, key=lambda entry: entry[:2]) == sorted(rows, key=lambda entry: entry[:2])


def test_what_is_not_installed_or_unknown_is_said(recipe, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'elastic-cnn\[loggers\]'"):
        loggers.make_loggers(["wandb"], RunFolder(tmp_path), recipe)
    with pytest.raises(ValueError, match="unknown logger 'wandbb'; did you mean wandb"):
        loggers.make_loggers(["wandbb"], RunFolder(tmp_path), recipe)


def test_mlflow_hears_of_each_run_where_it_should(recipe, tmp_path, monkeypatch):
    """MLflow sets MLFLOW_TRACKING_URI itself, to where it last wrote; one that the user set is kept to."""
    stores = []

    def logger(*, tracking_uri, **_):
        stores.append(tracking_uri)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        return SimpleNamespace(log_hyperparams=lambda values: None)

    known = {"lightning.pytorch.loggers": SimpleNamespace(MLFlowLogger=logger)}
    monkeypatch.setattr(loggers, "require", lambda module, extra: known.get(module))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("one", "two"):
        loggers.make_loggers(["mlflow"], RunFolder(tmp_path / name), recipe)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    loggers.make_loggers(["mlflow"], RunFolder(tmp_path / "three"), recipe)
    assert stores == [f"file:{tmp_path}/one/mlruns", f"file:{tmp_path}/two/mlruns", "http://tracking.example"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.filterwarnings("ignore")
def test_the_real_loggers_write_into_the_runs_folder(name, recipe, photos, tmp_path, monkeypatch):
    """Where they are installed; without a connection."""
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # so that what the run sets is put back
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    train(replace(recipe, epochs=1), photos, run, Settings(accelerator="cpu", loggers=(name,)))
    place = run / {"wandb": "wandb", "mlflow": "mlruns"}[name]
    assert any(path.is_file() for path in place.rglob("*"))
    train(recipe, photos, run, Settings(accelerator="cpu", loggers=(name,), overwrite=True))  # its files are cleared
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "photos"}  # nothing beside the run


def test_pictures_stand_in_tensorboard_and_stay_when_a_run_goes_on(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = RunFolder(tmp_path)
    colours = {1: (200, 10, 10), 2: (10, 200, 10)}
    for step, colour in colours.items():
        Image.new("RGB", (4, 6), colour).save(tmp_path / f"{step}.png")
    with RunLog(folder) as log:
        for step in colours:
            log.append("val", step, step, {"top1": 0.5})
            log.picture(tmp_path / f"{step}.png", step)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 5)  # files of the same second are told anew
    with RunLog(folder, {"train": Logged(0, 1), "val": Logged(1, 1)}):  # the second validation was not saved
        pass
    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    assert [event.step for event in events.Scalars("val/top1")] == [1]
    assert events.Tags()["images"] == ["val/1"]
    (image,) = events.Images("val/1")
    assert (image.step, image.width, image.height) == (1, 4, 6)
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
    assert tuple(pixels[0, 0]) == colours[1]
