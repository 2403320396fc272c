"""`elastic elasticize` and `elastic recalibrate` as a user runs them."""

import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from elastic_cnn import load_checkpoint, restore, save_checkpoint
from elastic_cnn.cli import main


def test_a_network_by_name_is_saved_and_loads_by_itself(tmp_path, capsys):
    out = tmp_path / "elastic.safetensors"
    assert main(["elasticize", "resnext_small", "--num-classes", "5", "--where", r"layer[12]\.", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"ratio +1\.0000 +0\.[89]\d+", text)
    assert "2 of 9 blocks are elastic (2 bottleneck)" in text or "3 of 9 blocks are elastic (3 bottleneck)" in text
    assert "left, excluded by where: layer3.1, layer3.2" in text
    network, card = load_checkpoint(out)
    assert card.elastic is not None
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert main(["elasticize", "resnext_small", "-o", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["elasticize", str(out)]) == 2
    assert "elastic already" in capsys.readouterr().err


def test_matched_depths_travel(tmp_path, capsys):
    out = tmp_path / "matched.safetensors"
    assert main(["elasticize", "resnext_small", "--match", "macs", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    ratios = [float(value) for value in re.search(r"ratio +(\S+) +(\S+)", text).groups()]
    assert all(abs(ratio - 1) <= 0.02 for ratio in ratios)
    assert re.search(r"depths \[2, 2, 3, 2\] -> \[\d", text)
    network, card = load_checkpoint(out)
    assert [len(getattr(network, f"layer{i}")) for i in range(1, 5)] == card.kwargs["layers"]


def test_another_input_size_travels(tmp_path, capsys):
    out = tmp_path / "grey.safetensors"
    size = ["--input-size", "1", "40", "48"]
    assert main(["elasticize", "resnext_small", "--num-classes", "2", *size, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "counted at input 1x40x48" in text
    assert "at blend 0 it computes what the original does" in text
    assert "its weights are random: give --pretrained or --weights FILE" in text
    network, card = load_checkpoint(out)
    assert (card.kwargs["in_chans"], card.input.size, len(card.input.mean)) == (1, (40, 48), 1)
    assert network.elastic_example.args[0].shape == (1, 1, 40, 48)
    assert network(torch.zeros(1, 1, 40, 48)).shape == (1, 2)
    again, base = tmp_path / "again.safetensors", tmp_path / "base.safetensors"
    save_checkpoint(base, restore(network), replace(card, elastic=None))
    arguments = ["resnext_small", "--num-classes", "2", *size, "--weights", str(base)]
    assert main(["elasticize", *arguments, "-o", str(again)]) == 0
    assert "random" not in capsys.readouterr().out
    loaded = load_checkpoint(again)[0].state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["resnext_smal"], "did you mean resnext_small"),
        (["resnext_small", "--shares", "0.9", "0.3"], "sum to 1"),
        (["resnext_small", "--stages", "7"], "no stage [7]"),
        (["resnext_small", "--where", "("], "not a regular expression"),
        (["resnext_small", "-o", "x.pth"], "ends in .safetensors"),
        (["mixer_s32_224"], "could be made elastic"),
        (["convnext_atto", "--match", "macs"], "not for ConvNeXt"),
        (["resnext_small", "--input-size", "3", "0", "9"], "three positive numbers"),
        (["resnext_small", "--pretrained", "--weights", "x"], "leave one of them out"),
        (
            ["resnext_small", "--pretrained"],
            "--pretrained: there are no published weights of resnext_small",
        ),
        (["resnext_small", "--weights", "gone.pth"], "another file of weights (.pth,"),
    ],
)
def test_bad_input(arguments, word, capsys):
    assert main(["elasticize", *arguments]) == 2
    assert word in capsys.readouterr().err


def test_published_weights_without_a_connection(monkeypatch, capsys):
    def offline(*_, **__):
        raise OSError("We couldn't connect\nto load the file")

    monkeypatch.setattr("elastic_cnn.tasks.network_sources._answers", lambda address: True)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    assert main(["elasticize", "resnet18", "--pretrained"]) == 2
    says = "--pretrained: the published weights of resnet18 cannot be had from here (We couldn't connect): download"
    assert says in (error := capsys.readouterr().err)
    assert "give --weights FILE" in error


def test_recalibrate_changes_statistics_alone(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for i in range(3):
            pixels = torch.randint(0, 255, (40, 50, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / "train" / name / f"{i}.png")
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert main(["elasticize", "resnext_small", "--num-classes", "2", "-o", str(first)]) == 0
    command = ["recalibrate", str(first), "--data", str(tmp_path / "photos"), "--batch-size", "3"]
    assert main([*command, "-o", str(second)]) == 0
    assert "recalibrated on 6 photos" in capsys.readouterr().out
    before, after = load_checkpoint(first)[0].state_dict(), load_checkpoint(second)[0].state_dict()
    changed = {key.rpartition(".")[2] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert main([*command, "-o", str(second)]) == 2
    assert (
        main(["recalibrate", str(first), "--data", str(tmp_path / "none"), "-o", str(tmp_path / "x.safetensors")]) == 2
    )
    assert "there is no folder" in capsys.readouterr().err
