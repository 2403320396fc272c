"""The engine: what a run writes, what it refuses, and that its parts do what they say."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.recipe import load_recipe
from elastic_cnn.tasks.settings import Settings, TestOptions
from elastic_cnn.tasks.training import NonFiniteLoss, evaluate, train
from elastic_cnn.zoo.checkpoint import load_checkpoint

CPU = Settings(accelerator="cpu")


def primitives_only(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and primitives_only(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(primitives_only(entry) for entry in value)
    return value is None or type(value) in (str, int, float, bool, torch.Tensor)


def test_a_run_leaves_everything_that_it_promises(whole, recipe):
    out, summary = whole
    assert {path.name for path in out.iterdir()} == {
        "recipe.yaml", "last.ckpt", "previous.ckpt", "best.safetensors", "last.safetensors", "train.csv", "val.csv",
        "summary.json", "tensorboard", "data.json", "curves.png",
        "pictures",
    }  # fmt: skip
    assert load_recipe(out / "recipe.yaml") == recipe
    written = json.loads((out / "summary.json").read_text())
    assert written["best"] == summary.best == written["best_results"]["top1"]
    assert (summary.steps, summary.train_images, summary.val_images) == (8, 32, 9)
    assert set(summary.files) >= {"best.safetensors", "last.ckpt", "summary.json"}
    assert all((out / name).exists() for name in summary.files)
    assert list((out / "tensorboard").glob("events*"))
    assert primitives_only(torch.load(out / "last.ckpt", weights_only=True))


def test_the_checkpoint_holds_the_average_and_its_card(whole, recipe, photos):
    out, summary = whole
    _, card = load_checkpoint(out)
    assert (card.classes, card.task, card.input.size) == (("blue", "green", "red"), "classification", (32, 32))
    assert card.info["recipe"] == recipe.to_dict()
    state = torch.load(out / "last.ckpt", weights_only=True)
    last = load_file(out / "last.safetensors")
    assert all(torch.equal(last[name], state["ema"][name]) for name in last)
    raw = {name.removeprefix("network."): tensor for name, tensor in state["task"].items()}
    assert any(not torch.equal(last[name], raw[name]) for name in last)
    tested = evaluate(out, photos, settings=CPU)
    assert {name: tested[name] for name in summary.best_results} == pytest.approx(summary.best_results, rel=1e-5)
    assert (tested["images"], tested["classes"], tested["unreadable"]) == (9, 3, 0)


def test_it_learns(recipe_path, photos, tmp_path):
    recipe = load_recipe(recipe_path, ["epochs=6", "ema=null", "options={}"])
    summary = train(recipe, photos, tmp_path / "run", CPU)
    assert summary.best == 1.0  # the classes differ in their brightest channel: chance is 1/3


def test_a_folder_with_a_run_is_refused_or_replaced(whole, recipe, photos, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    (out / "notes.txt").write_text("kept")
    with pytest.raises(
        ValueError,
        match=r"already \('recipe.yaml', 'last.ckpt' and \d+ more\): --resume goes on with it, --overwrite starts anew",
    ):
        train(recipe, photos, out, CPU)
    other = replace(recipe, epochs=3, seed=5)
    with pytest.raises(ValueError, match=r"started with epochs=2 \(now 3\), seed=0 \(now 5\)"):
        train(other, photos, out, replace(CPU, resume=True))
    assert (
        train(recipe, photos, out, replace(CPU, resume=True)).best == whole[1].best
    )  # finished already: nothing to do
    train(replace(other, epochs=1), photos, out, replace(CPU, overwrite=True))
    assert (out / "notes.txt").read_text() == "kept"
    assert len((out / "val.csv").read_text().splitlines()) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        train(recipe, photos, tmp_path / "file", CPU)


def test_accumulation_equals_the_whole_batch_without_batch_norm(recipe_path, photos, tmp_path):
    """Means of means over parts of equal size; tolerance: float32 sums in another order, over 4 steps."""
    base = ["network_kwargs.norm_layer=layernorm2d", "network_kwargs.drop_rate=0", "options={}", "epochs=1"]
    for name, more in (("whole", []), ("parts", ["accumulate=4"])):
        train(load_recipe(recipe_path, [*base, *more]), photos, tmp_path / name, CPU)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(recipe, photos, tmp_path, monkeypatch):
    original, calls = Classification.training_step, []

    def training_step(self, batch, batch_idx):
        calls.append(batch["index"].tolist())
        return original(self, batch, batch_idx) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(Classification, "training_step", training_step)
    with pytest.raises(NonFiniteLoss, match=r"the loss became nan in epoch 1, step 3 of 4") as caught:
        train(recipe, photos, tmp_path / "run", replace(CPU, checkpoint_every=1))
    assert len(re.findall(r"\w+/\d+\.png", str(caught.value))) == 4
    assert "and 4 more" in str(caught.value)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["progress"]["step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["task"].values())


def test_weights_that_are_not_finite_are_never_kept(recipe, photos, tmp_path, monkeypatch):
    """A gradient may be NaN where the loss is finite."""
    original = Classification.training_step

    def training_step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        if self.steps == 2:
            loss.register_hook(lambda gradient: gradient * float("nan"))
        self.steps += 1
        return loss

    monkeypatch.setattr(Classification, "training_step", training_step)
    monkeypatch.setattr(Classification, "steps", 0, raising=False)
    with pytest.raises(NonFiniteLoss, match="weights became NaN or infinite"):
        train(recipe, photos, tmp_path / "run", replace(CPU, checkpoint_every=1))
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["progress"]["step"] == 2
    monkeypatch.setattr(Classification, "steps", 0)
    with pytest.raises(NonFiniteLoss, match=r"gradient's norm became nan in epoch 1, step 3 of 4 \(images: /"):
        train(replace(recipe, clip_grad=1.0), photos, tmp_path / "clipped", CPU)


def test_out_of_memory_says_what_to_lower(recipe, photos, tmp_path, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(Classification, "training_step", training_step)
    with pytest.raises(
        ValueError, match=r"out of memory: try accumulate=2 .* batch_size \(now 8\).*precision=bf16-mixed"
    ):
        train(recipe, photos, tmp_path / "run", CPU)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_counted_and_strict_refuses_them(workers, recipe, photos, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "train" / "red" / "0.png").write_bytes(b"no image")
    Image.new("RGB", (20, 20)).save(data / "val" / "red" / "0.png")
    (data / "val" / "red" / "1.png").write_bytes((data / "val" / "red" / "1.png").read_bytes()[:60])
    settings = replace(CPU, workers=workers)
    summary = train(recipe, data, tmp_path / "run", settings)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert summary.unreadable == 2
    assert len(warnings) == 2  # one line a file, not one a reading
    assert all("left out" in line and ".png cannot be read" in line for line in warnings)
    assert "2 unreadable image(s) left out" in summary.lines()[0]
    tested = evaluate(tmp_path / "run", data, settings=settings)
    assert (tested["images"], tested["unreadable"]) == (8, 1)
    with pytest.raises(OSError, match=r"red/[01]\.png cannot be read"):
        train(recipe, data, tmp_path / "strict", replace(settings, strict=True))
    with pytest.raises(OSError, match=r"red/1\.png cannot be read"):
        evaluate(tmp_path / "run", data, options=TestOptions(strict=True), settings=settings)


def test_evaluation_at_another_size_and_of_another_folder(whole, photos, tmp_path):
    small = evaluate(whole[0], photos, options=TestOptions(image_size=16, batch_size=4), settings=CPU)
    assert small["images"] == 9
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    (data / "val" / "red").rename(data / "val" / "purple")
    with pytest.raises(ValueError, match="holds 'purple', which the 3 classes to choose from lack"):
        evaluate(whole[0], data, settings=CPU)


def test_val_classes_absent_from_train_are_named(photos, recipe, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    shutil.rmtree(data / "train" / "green")
    with pytest.raises(ValueError, match="val holds 'green'"):
        train(recipe, data, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_channels_last_changes_nothing_that_matters(recipe_path, photos, whole, tmp_path):
    """Other kernels sum in another order: float32 over 8 steps with batch norm, so 1e-3."""
    train(load_recipe(recipe_path, ["channels_last=true"]), photos, tmp_path / "run", CPU)
    one, two = load_file(tmp_path / "run" / "last.safetensors"), load_file(whole[0] / "last.safetensors")
    for name in two:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-3)


def test_curves_hold_what_the_logs_hold(whole, tmp_path, monkeypatch):
    """The picture is drawn from the CSV files: other logs, another picture; without matplotlib, none."""
    from elastic_cnn.tasks import curves

    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text((whole[0] / name).read_text())
    drawn: list = []
    from matplotlib.axes import Axes

    original = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda self, x, y, **k: (drawn.append((x, y)), original(self, x, y, **k))[1])
    assert curves.draw_curves(tmp_path, "top1", 1) == tmp_path / "curves.png"
    rows = [line.split(",") for line in (tmp_path / "train.csv").read_text().splitlines()]
    place = rows[0].index("loss")
    assert drawn[0] == ([float(row[1]) for row in rows[1:]], [float(row[place]) for row in rows[1:]])
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > picture.height > 100
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert curves.draw_curves(tmp_path, "top1", 1) is None


def test_a_picture_of_the_confusions_is_drawn_after_each_validation(tmp_path):
    task = Classification(torch.nn.Identity(), 3)
    assert task.save_pictures(tmp_path, 1) == []
    logits = torch.eye(3)[torch.tensor([0, 0, 1, 2])]
    task.validation_step({"image": logits, "target": torch.tensor([0, 0, 1, 1])}, 0)
    task.validation_results()
    (path,) = task.save_pictures(tmp_path, 1)
    with Image.open(path) as picture:
        assert picture.size == (480, 480)
        found = [[picture.getpixel((160 * column + 80, 160 * row + 80)) for column in range(3)] for row in range(3)]
    dark, half, white = (8, 48, 107), (132, 152, 181), (255, 255, 255)
    assert found == [[dark, white, white], [white, half, half], [white, white, white]]
    assert Classification(torch.nn.Identity(), 1000).confusion is None
    results = {"loss": 0.5, "top1_error": 0.25, "top5_error": 0.125}
    said = [Classification(torch.nn.Identity(), classes).headline(results) for classes in (5, 6)]
    assert said == ["loss 0.500, top-1 error 25.00%", "loss 0.500, top-1 error 25.00%, top-5 error 12.50%"]
