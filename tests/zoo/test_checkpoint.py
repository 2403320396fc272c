"""Checkpoints name their network, load strictly, and refuse what is broken with the file's name."""

import dataclasses
import errno
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from elastic_cnn import ElasticSpec, create_model, elasticize, load_checkpoint, optimize_for_inference, save_checkpoint
from elastic_cnn.zoo import InputSpec, NetworkCard, read_card

SMALL = {"layers": (2, 1, 1, 1), "channels": (16, 16, 16, 16), "num_classes": 3, "stem_width": 8}
CARD = NetworkCard(
    "resnet18",
    {**SMALL},
    classes=("ant", "bee", "çat"),
    input=InputSpec(size=(64, 48), crop_mode="squash"),
    info={"top1": 0.5},
)


@pytest.fixture
def saved(tmp_path):
    network = create_model("resnet18", **SMALL)
    return save_checkpoint(tmp_path / "best.safetensors", network, CARD), network.eval()


def test_round_trip(saved):
    path, network = saved
    x = torch.randn(1, 3, 48, 64)
    for place in (path, path.parent):
        loaded, card = load_checkpoint(place)
        assert torch.equal(loaded(x), network(x))
        assert not loaded.training
    assert card.classes == CARD.classes
    assert card.input == CARD.input
    assert read_card(path).info == {"top1": 0.5}


def test_elasticized_networks_travel_by_name(tmp_path):
    base = timm.create_model("resnet18", **SMALL)
    elastic = elasticize(base, ElasticSpec(shares=(0.75, 0.25)), where=lambda name, _: name == "layer1.1").eval()
    path = save_checkpoint(tmp_path / "a.safetensors", elastic, CARD)
    loaded, card = load_checkpoint(path)
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(loaded(x), elastic(x))
    assert card.elastic is not None
    assert card.elastic["blocks"] == ["layer1.1"]
    assert loaded.elastic_spec.shares == (0.75, 0.25)


def test_entries_that_are_elastic_by_name_need_no_surgery_note(tmp_path):
    kwargs = {"num_classes": 3}
    card = NetworkCard("resnext_small_elastic", kwargs)
    path = save_checkpoint(tmp_path / "a.safetensors", create_model(card.network, **kwargs), card)
    assert load_checkpoint(path)[1].elastic is None


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint at .*none"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(ValueError, match=r"without best\.safetensors"):
        load_checkpoint(tmp_path)
    (tmp_path / "a.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="elastic convert"):
        load_checkpoint(tmp_path / "a.pth")
    save_file({"w": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="does not say of which network"):
        load_checkpoint(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("keep", [0, 7, 100, -5])
def test_truncated_files(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"best\.safetensors is not a readable safetensors file"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_or_are_not_finite(tmp_path, saved):
    _path, network = saved
    other = dataclasses.replace(CARD, kwargs={**SMALL, "num_classes": 4})
    state = network.state_dict()
    save_file(state, tmp_path / "b.safetensors", metadata={"elastic_cnn": other.to_json()})
    with pytest.raises(ValueError, match="does not fit resnet18"):
        load_checkpoint(tmp_path / "b.safetensors")
    state["fc.weight"] = torch.full_like(state["fc.weight"], float("nan"))
    save_file(state, tmp_path / "c.safetensors", metadata={"elastic_cnn": CARD.to_json()})
    with pytest.raises(ValueError, match=r"fc\.weight holds values that are not finite"):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("card", "word"),
    [
        ("[]", "not a network card"),
        ('{"version": 99, "network": "resnet18"}', "version 99"),
        ('{"version": 1, "network": "resnet18", "colour": 1}', "colour"),
        ('{"version": 1, "network": "resnet81"}', "did you mean"),
        ('{"version": 1, "network": "resnet18", "kwargs": {"num_clases": 3}}', "num_clases"),
        ('{"version": 1, "network": "resnet18", "task": "poetry"}', "unknown task 'poetry'"),
    ],
)
def test_broken_cards(tmp_path, card, word):
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"elastic_cnn": card})
    with pytest.raises(ValueError, match=word) as caught:
        load_checkpoint(tmp_path / "a.safetensors")
    assert "a.safetensors" in str(caught.value)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, network = saved
    before = path.read_bytes()

    def fill_the_disk(temporary, data):
        assert [p.name for p in path.parent.glob(".*")] == [temporary.name]  # one that a resume knows and removes
        with temporary.open("wb") as file:
            file.write(data[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match=r"best\.safetensors could not be written \(No space left on device\)"):
        save_checkpoint(path, network, CARD)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["best.safetensors"]


def test_an_optimized_network_is_not_saved(tmp_path):
    network = create_model("resnext_small", num_classes=3)
    card = NetworkCard(network="resnext_small", kwargs={"num_classes": 3})
    with pytest.raises(ValueError, match="save the one it was made from"):
        save_checkpoint(tmp_path / "x.safetensors", optimize_for_inference(network), card)
    assert list(tmp_path.iterdir()) == []
