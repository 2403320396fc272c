"""`elastic policy` and `elastic figures` as a user calls them."""

import shutil

import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.cli import main
from elastic_cnn.policy.table import read_policy
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint

NARROW = {"num_classes": 2, "channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}
FAST = ["--workers", "0", "--device", "cpu", "--batch-size", "4", "--no-progress"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos in `data/val/{dark,light}` (6 each), checkpoints `run/best.safetensors` and `base.safetensors`."""
    root = tmp_path_factory.mktemp("policy")
    for value, name in ((40, "dark"), (200, "light")):
        (root / "data" / "val" / name).mkdir(parents=True)
        for number in range(6):
            photo = Image.effect_noise((40, 36), 10 + 5 * number).point(lambda v, value=value: v + value - 128)
            photo.convert("RGB").save(root / "data" / "val" / name / f"{number}.png")
    for seed, (name, path) in enumerate(
        (("resnext_small_elastic", "run/best.safetensors"), ("resnext_small", "base.safetensors"))
    ):
        torch.manual_seed(seed)
        card = NetworkCard(name, NARROW, classes=("dark", "light"), input=InputSpec(size=(32, 32)))
        save_checkpoint(root / path, elastic_cnn.create_model(name, **NARROW), card)
    return root


def test_collects_and_draws(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["policy", str(folder / "run"), "--data", str(folder / "data"), "-o", str(out)]
    command += ["--against", str(folder / "base.safetensors"), *FAST]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "12 images, 3 elastic blocks" in printed
    assert "no policy_by_size: object sizes are known for 0 images" in printed
    table = read_policy(out)
    assert table.column("label") == ["dark"] * 6 + ["light"] * 6
    assert table.has_base
    drawn = {path.name for path in (out / "figures").iterdir()}
    names = ("figure1_photos", "figure5_categories", "figure6_blocks", "figure6_gain", "figure6_photos")
    assert drawn == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}

    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--no-figures"]) == 0

    before = (out / "figures" / "figure5_categories.png").read_bytes()
    again = tmp_path / "again"
    assert main(["figures", str(out), "-o", str(again), "--format", "png"]) == 0
    assert (again / "figure5_categories.png").read_bytes() == before
    assert {path.suffix for path in again.iterdir()} == {".png"}
    assert main(["figures", str(out), "-o", str(again)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_default_output_is_beside_the_checkpoint(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    assert main(["policy", str(tmp_path / "run"), "--data", str(folder / "data"), "--no-figures", *FAST]) == 0
    assert len(read_policy(tmp_path / "run" / "policy")) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--data", "{root}/none"], "there is no folder"),
        (["{root}/none", "--data", "{data}"], "no checkpoint at"),
        (["{base}", "--data", "{data}"], "has no elastic block"),
        (["{run}", "--data", "{data}", "--batch-size", "0"], "must be positive"),
        (["{run}", "--data", "{data}", "--against", "{data}"], "best.safetensors"),
    ],
)
def test_bad_input_is_one_line_and_code_2(folder, tmp_path, capsys, arguments, message):
    places = {"root": folder, "run": folder / "run", "data": folder / "data", "base": folder / "base.safetensors"}
    arguments = [argument.format(**places) for argument in arguments]
    assert main(["policy", *FAST, "-o", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_figures_of_a_foreign_file_are_refused(tmp_path, capsys):
    (tmp_path / "x.parquet").write_text("x")
    assert main(["figures", str(tmp_path / "x.parquet")]) == 2
    assert "not a readable Parquet file" in capsys.readouterr().err
