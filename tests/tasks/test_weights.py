"""Networks of recipes: initialisation, initial weights and the report of what did not fit."""

import math
import re

import pytest
import torch
from torch import nn

from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.weights import he_fan_in, load_weights, make_network, read_state_dict
from elastic_cnn.zoo.checkpoint import NetworkCard, save_checkpoint
from elastic_cnn.zoo.factory import create_model

KWARGS = {"stem_width": 8, "channels": [8, 8, 16, 16]}
RECIPE = Recipe(network="resnet10t", network_kwargs=KWARGS, image_size=48)


def same(network: nn.Module, state: dict[str, torch.Tensor], names) -> bool:
    own = network.state_dict()
    return all(torch.equal(own[name], state[name]) for name in names)


def test_a_new_head_is_reported_and_the_rest_loads(tmp_path, capsys):
    source = create_model("resnet10t", num_classes=5, **KWARGS)
    path = save_checkpoint(tmp_path / "w.safetensors", source, NetworkCard("resnet10t", {"num_classes": 5, **KWARGS}))
    recipe = Recipe(network="resnet10t", network_kwargs=KWARGS, weights=str(path))
    network, card = make_network(recipe, ("a", "b", "c"), crop_mode="squash")
    backbone = [name for name in source.state_dict() if not name.startswith("fc.")]
    assert same(network, source.state_dict(), backbone)
    assert network.fc.out_features == 3
    assert (card.classes, card.kwargs["num_classes"], card.input.crop_mode) == (("a", "b", "c"), 3, "squash")
    printed = capsys.readouterr().out
    assert f"{len(backbone)} tensors loaded" in printed
    assert re.search(r"of another shape, so new: fc\.(weight, fc\.bias|bias, fc\.weight)$", printed.strip())


def test_a_backbone_within_another_network_is_found(tmp_path):
    source = create_model("resnet10t", num_classes=5, **KWARGS)
    torch.save({"state_dict": {f"module.{name}": t for name, t in source.state_dict().items()}}, tmp_path / "w.pth")
    inner = create_model("resnet10t", num_classes=0, **KWARGS)
    whole = nn.ModuleDict({"backbone": inner, "decoder": nn.Conv2d(16, 2, 1)})
    report = load_weights(whole, tmp_path / "w.pth")
    assert same(inner, source.state_dict(), inner.state_dict())
    assert set(report.new) == {"decoder.weight", "decoder.bias"}
    assert set(report.unused) == {"backbone.fc.weight", "backbone.fc.bias"}


def test_base_weights_can_be_made_elastic(tmp_path):
    source = create_model("resnext_small", num_classes=4)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    recipe = Recipe(network="resnext_small", elastic=True, weights=str(tmp_path / "w.pth"), image_size=64)
    network, _ = make_network(recipe, tuple("abcd"))
    assert network.elastic_report.converted
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in source.parameters())
    assert torch.equal(network.conv1.weight, source.conv1.weight)


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_weights_are_refused_without_running_code(tmp_path, capsys):
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    torch.save(Code(), tmp_path / "code.pth")
    with pytest.raises(ValueError, match="holds code, which is never run"):
        load_weights(network, tmp_path / "code.pth")
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(
        {name: t * math.nan for name, t in network.state_dict().items() if t.is_floating_point()}, tmp_path / "nan.pth"
    )
    torch.save(create_model("vit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "other.pth")
    for name, message in (
        ("text", "is not a file of weights"),
        ("list", "does not hold named tensors"),
        ("nan", "not finite"),
        ("other", "the weights do not fit this network"),
        ("missing", "no checkpoint at"),
    ):
        with pytest.raises(ValueError, match=message):
            load_weights(network, tmp_path / f"{name}.pth")


def test_he_initialisation_is_fan_in():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 256, 3, groups=4)  # fan-in 16 * 9
    he_fan_in(layer)
    # 36,864 normal draws: their deviation is within 2% (5 sigma) of the true one
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 144), rel=0.02)


def test_the_seed_decides_the_initial_weights():
    states = [
        make_network(Recipe(network="resnet10t", network_kwargs=KWARGS, seed=s), ("a", "b"))[0] for s in (1, 1, 2)
    ]
    one, again, other = (network.state_dict() for network in states)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["conv1.0.weight"], other["conv1.0.weight"])


def test_networks_that_cannot_be_made_are_explained():
    with pytest.raises(ValueError, match="names no network: give --network"):
        make_network(Recipe(), ("a",))
    with pytest.raises(ValueError, match="did you mean resnext_small_elastic"):
        make_network(Recipe(network="resnext_small_elastik"), ("a",))
    with pytest.raises(ValueError, match="resnet18 cannot be built with"):
        make_network(Recipe(network="resnet18", network_kwargs={"wings": 2}), ("a",))
    with pytest.raises(ValueError, match="init=he_fan_in would overwrite weights=timm"):
        make_network(Recipe(network="resnet18", weights="timm", init="he_fan_in"), ("a",))


def test_plain_tensors_are_read_from_both_formats(tmp_path):
    network = create_model("resnet10t", num_classes=2, **KWARGS)
    torch.save({"model": network.state_dict()}, tmp_path / "w.pth")
    save_checkpoint(tmp_path / "w.safetensors", network, NetworkCard("resnet10t", {"num_classes": 2, **KWARGS}))
    one, two = read_state_dict(tmp_path / "w.pth"), read_state_dict(tmp_path / "w.safetensors")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
