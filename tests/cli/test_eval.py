"""`elastic eval`: its numbers against counting by hand, and wrong inputs."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from elastic_cnn.cli import main
from elastic_cnn.data.image_folder import eval_transform
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, load_checkpoint, save_checkpoint
from elastic_cnn.zoo.factory import create_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network whose answers vary."""
    torch.manual_seed(1)
    kwargs = {"num_classes": 2, "stem_width": 8, "channels": [8, 8, 16, 16]}
    card = NetworkCard("resnet10t", kwargs, classes=("dark", "light"), input=InputSpec((32, 32), crop_pct=0.9))
    return save_checkpoint(tmp_path_factory.mktemp("c") / "net.safetensors", create_model("resnet10t", **kwargs), card)


def evaluate(*arguments: object) -> int:
    return main(["eval", *map(str, arguments), "--accelerator", "cpu", "--workers", "0"])


@pytest.mark.parametrize("split", ["val", "train"])
def test_errors_equal_counting_one_image_at_a_time(split, tiny, checkpoint, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert evaluate(checkpoint, "--data", tiny / "photos", "--split", split, "--json", out, "--batch-size", 3) == 0
    results = json.loads(out.read_text())
    network, card = load_checkpoint(checkpoint)
    transform = eval_transform(**asdict(card.input))
    wrong = total = 0
    for path in sorted((tiny / "photos" / split).glob("*/*.png")):
        with torch.no_grad():
            answer = network(transform(Image.open(path))[None]).argmax().item()
        wrong, total = wrong + (card.classes[answer] != path.parent.name), total + 1
    assert results["images"] == total
    assert results["top1_error"] == pytest.approx(wrong / total, abs=1e-6)
    assert results["top5_error"] == 0  # two classes
    printed = capsys.readouterr().out
    assert f"top-1 error {100 * wrong / total:.2f}%\n" in printed
    assert "top-5" not in printed  # of two classes every answer is among the first five


def test_wrong_input_is_one_line_and_exit_code_2(tiny, checkpoint, tmp_path, capsys):
    photos = tiny / "photos"
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    (other / "val" / "dark").rename(other / "val" / "dusk")
    (tmp_path / "taken.json").write_text("{}")
    (tmp_path / "torn.safetensors").write_bytes(checkpoint.read_bytes()[:2000])
    for arguments, message in (
        ([checkpoint, "--data", other], "holds 'dusk', which the 2 classes to choose from lack ('dark', 'light')"),
        ([checkpoint, "--data", photos, "--split", "tests"], "no folder 'tests'"),
        ([checkpoint, "--data", photos, "--json", tmp_path / "taken.json"], "taken.json exists already"),
        ([checkpoint, "--data", photos, "--image-size", 0], "image_size=0"),
        ([checkpoint, "--data", photos, "--batch-size", 0], "batch_size=0"),
        ([tmp_path / "torn.safetensors", "--data", photos], "torn.safetensors is not a readable safetensors file"),
        ([tmp_path, "--data", photos], "a folder without best.safetensors"),
    ):
        assert evaluate(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.strip().splitlines()) == 1


def test_photos_of_which_none_can_be_read_have_no_results(tiny, checkpoint, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(tiny / "photos", photos)
    for path in photos.glob("val/*/*.png"):
        path.write_bytes(path.read_bytes()[:40])
    out = tmp_path / "results.json"
    assert evaluate(checkpoint, "--data", photos, "--json", out) == 2
    assert capsys.readouterr().err.strip().endswith(f"elastic: error: no photo of {photos} (val) could be read")
    assert not out.exists()
    command = ["train", tiny / "tiny.yaml", "--data", photos, "-o", tmp_path / "run", "--workers", 0]
    assert main([*map(str, command), "--accelerator", "cpu"]) == 2
    assert "no photo of the validation can be read, the last being " in capsys.readouterr().err
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_eval_prints_what_training_printed(tiny, tmp_path, capsys):
    """The same number in the same words; another precision is named."""
    for precision in ("fp32", "bf16-mixed"):
        run = tmp_path / precision
        arguments = [str(tiny / "tiny.yaml"), "--data", str(tiny / "photos"), "-o", str(run), f"precision={precision}"]
        assert main(["train", *arguments, "--accelerator", "cpu", "--workers", "0"]) == 0
        printed = capsys.readouterr().out
        best = re.search(r": best in epoch 1 of 1: (loss .*, top-1 error [\d.]+%); \d+ s", printed)
        assert best
        assert f"epoch 1/1: {best[1]}" in printed
        assert evaluate(run, "--data", tiny / "photos", "--json", run / "eval.json") == 0
        shown = capsys.readouterr().out
        assert f"  {best[1]}" in shown.splitlines() or precision != "fp32"
        assert ("in fp32; validated in bf16-mixed while it trained" in shown) == (precision != "fp32")
        results, summary = (json.loads((run / name).read_text()) for name in ("eval.json", "summary.json"))
        assert (results["precision"], results["trained_in"], summary["precision"]) == ("fp32", precision, precision)
        assert results["top1_error"] == pytest.approx(1 - summary["best"]) or precision != "fp32"
