"""Runs whose blocks train in fused passes: the recipe's key, an exact resume, checkpoints that load anywhere."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from elastic_cnn.fast import training_ops
from elastic_cnn.fast.training_blocks import FusedResidual, TrainingForm
from elastic_cnn.tasks.classification import Classification
from elastic_cnn.tasks.recipe import Recipe, load_recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import train
from elastic_cnn.tasks.training_form import obstacle, use_training_form
from elastic_cnn.zoo import create_model, load_checkpoint

TINY = ["network=resnext_small_elastic", "image_size=64", "network_kwargs={}", "channels_last=true", "epochs=2"]
CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(bool(training_ops.unavailable()), reason=training_ops.unavailable() or "-")


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture
def fused_recipe(recipe_path) -> Recipe:
    return load_recipe(recipe_path, [*TINY, "fused=always", "batch_size=16"])


@needs_kernels
def test_a_killed_run_ends_as_one_that_was_not(fused_recipe, photos, tmp_path, monkeypatch):
    """To the bit, and every block computed in the fused form in both."""
    seen = set()
    original = FusedResidual.forward

    def forward(self, *arguments):
        y = original(self, *arguments)
        seen.add(self.plain_because if self.training else "-")
        return y

    monkeypatch.setattr(FusedResidual, "forward", forward)
    settings = Settings(accelerator="cpu", checkpoint_every=1)
    train(fused_recipe, photos, tmp_path / "whole", settings)
    calls = iter(range(100))
    step = Classification.training_step

    def killed_in_the_second_epoch(self, *args):
        if next(calls) == 2:
            raise Killed
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "training_step", killed_in_the_second_epoch)
        with pytest.raises(Killed):
            train(fused_recipe, photos, tmp_path / "run", settings)
    train(fused_recipe, photos, tmp_path / "run", replace(settings, resume=True))
    assert seen == {"", "-"}
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    network, _ = load_checkpoint(tmp_path / "run")
    assert not any(isinstance(module, TrainingForm) for module in network.modules())


@needs_kernels
def test_the_key_of_the_recipe():
    network = create_model("resnext_small_elastic")
    recipe = Recipe(channels_last=True, fused="auto")
    assert use_training_form(replace(recipe, fused="never"), network, CPU) == ""
    assert not any(isinstance(module, TrainingForm) for module in network.modules())
    said = use_training_form(recipe, network, CPU)
    assert re.fullmatch(
        r"(\d+) of \1 blocks and shortcuts train in the fused form, the same computation in less time", said
    )
    assert any(isinstance(module, TrainingForm) for module in network.modules())


@needs_kernels
def test_reasons_are_told_to_whom_asks_for_the_form():
    """Who trains is told how many blocks gain, `fused=always` why the others do not; nothing where none can."""
    recipe = Recipe(channels_last=True, fused="auto")
    network = create_model("resnet26", layers=(1, 1, 1, 1))
    network.layer1[0].conv2 = torch.nn.Sequential(network.layer1[0].conv2, torch.nn.Dropout(0.1))
    said = use_training_form(recipe, network, CPU)
    assert re.match(r"\d+ of \d+ blocks .*, the others as they are \(fused=always says why\)$", said), said
    assert "left, " not in said
    assert "left, " in use_training_form(replace(recipe, fused="always"), network, CPU)
    assert use_training_form(recipe, torch.nn.Conv2d(3, 3, 1), CPU) == ""


def test_a_missing_compiler_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(training_ops, "unavailable", lambda: "no native kernels: no compiler")
    said = use_training_form(Recipe(channels_last=True, fused="auto"), create_model("resnext_small_elastic"), CPU)
    assert said.endswith("no native kernels: no compiler (see `elastic doctor`)")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("changes", "device", "reason"),
    [
        ({"fused": "never"}, "cpu", "never"),
        ({}, "cuda", "cuda"),
        ({"precision": "16-mixed"}, "cpu", "precision=16-mixed"),
        ({"channels_last": False}, "cpu", "channels_last"),
        ({"compile": True}, "cpu", "compiles"),
    ],
)
def test_runs_that_train_plainly_say_why(changes, device, reason):
    assert reason in obstacle(replace(Recipe(channels_last=True, fused="auto"), **changes), torch.device(device))


def test_bfloat16_is_fused_where_the_processor_has_it(monkeypatch):
    recipe = Recipe(channels_last=True, fused="auto", precision="bf16-mixed")
    monkeypatch.setattr(training_ops, "bf16_level", lambda: "avx512_bf16")
    assert obstacle(recipe, CPU) == ""
    monkeypatch.setattr(training_ops, "bf16_level", lambda: "")
    assert "precision=bf16-mixed" in obstacle(recipe, CPU)


def test_always_is_an_error_where_it_cannot_be(monkeypatch):
    recipe = Recipe(channels_last=True, fused="always")
    with pytest.raises(ValueError, match="no block can train"):
        use_training_form(recipe, torch.nn.Conv2d(3, 3, 1), CPU)
    monkeypatch.setattr(training_ops, "unavailable", lambda: "no native kernels: no compiler")
    with pytest.raises(ValueError, match="no compiler"):
        use_training_form(recipe, create_model("resnext_small_elastic"), CPU)
