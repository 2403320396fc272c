"""Checkpoints name their network, load strictly, and refuse what is broken with the file's name."""

import dataclasses
import errno
import json
import socket
import time
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
    other = dataclasses.replace(CARD, kwargs={**SMALL, "num_classes": 4}, classes=())
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"kwargs": {**SMALL, "num_classes": 4}, "classes": ()},
            r"builds another network .*: 2 tensors differ, fc\.bias",
        ),
        ({"kwargs": {"num_classes": 3}}, "builds another network than this one"),
        ({"network": "resnet26"}, "builds another network than this one"),
        ({"network": "resnet81"}, "unknown network 'resnet81'; did you mean"),
        ({"kwargs": {**SMALL, "wings": 2}}, "cannot be built with"),
        ({"classes": ("ant", "bee")}, "names 2 classes for 3 outputs"),
        ({"elastic": {"spec": {}, "blocks": ["layer9"]}}, "cannot be built with"),
        (
            {"kwargs": {**SMALL, "pretrained": True}},
            r"pretrained=True would .* leave the argument out",
        ),
    ],
)
def test_a_card_that_does_not_describe_the_network_is_not_saved(changes, says, saved):
    path, network = saved
    with pytest.raises(ValueError, match=says) as caught:
        save_checkpoint(path.with_name("new.safetensors"), network, dataclasses.replace(CARD, **changes))
    assert "new.safetensors is not written" in str(caught.value)
    assert not path.with_name("new.safetensors").exists()


def test_saving_an_elastic_network_never_fetches_what_its_card_asks_for(saved, monkeypatch):
    path, _ = saved
    network = elasticize(create_model(CARD.network, **SMALL))
    monkeypatch.setattr("elastic_cnn.zoo.checkpoint.create_model", lambda *_, **__: pytest.fail("it was built"))
    card = dataclasses.replace(CARD, kwargs={**SMALL, "pretrained": True})
    with pytest.raises(ValueError, match="leave the argument out"):
        save_checkpoint(path.with_name("new.safetensors"), network, card)


def test_saving_looks_at_the_card_without_drawing_numbers(saved):
    """A run goes on bit-exactly beside the checkpoints that it writes."""
    path, network = saved
    torch.manual_seed(3)
    before = torch.get_rng_state()
    save_checkpoint(path, network, dataclasses.replace(CARD, info={"top1": 1.0}))
    network.fc = torch.nn.Linear(network.fc.in_features, 5)  # looked at anew: it is another network now
    after = torch.get_rng_state()
    with pytest.raises(ValueError, match="builds another network"):
        save_checkpoint(path, network, CARD)
    torch.manual_seed(3)
    torch.nn.Linear(network.fc.in_features, 5)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(before, after)


def hostile(path: Path, state: dict[str, torch.Tensor], changes: dict[str, object]) -> Path:
    """A checkpoint whose card has other values, as no `save_checkpoint` would write it."""
    text = json.dumps({**json.loads(CARD.to_json()), **changes})
    save_file(state, path, metadata={"elastic_cnn": text})
    return path


INPUT = dataclasses.asdict(CARD.input)
FILE = {"file": "/etc/hostname"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        *[
            ({"kwargs": {**SMALL, **more}, "classes": []}, f"the network's argument {name}")
            for name, more in (
                ("pretrained", {"pretrained": True}),
                ("pretrained_cfg", {"pretrained": False, "pretrained_cfg": {"url": "http://127.0.0.1:9/x"}}),
                ("pretrained_cfg_overlay", {"pretrained_cfg_overlay": FILE}),
                ("pretrained_cfg", {"pretrained_cfg": "tag"}),
                ("checkpoint_path", {"checkpoint_path": "weights.pth"}),
                ("cache_dir", {"cache_dir": "/tmp"}),
                ("url", {"block_args": [{"more": {"url": "ftp://x"}}]}),
                ("backbone", {"backbone": "hf-hub:someone/network"}),
                ("base", {"base": "local-dir:/tmp"}),
                ("num_classes", {"num_classes": 10**12}),
                ("layers", {"layers": [10**9, 1, 1, 1]}),
                ("stem_width", {"stem_width": -(10**30)}),
                ("drop_rate", {"drop_rate": float("inf")}),
                ("drop_path_rate", {"drop_path_rate": "half"}),
            )
        ],
        *[
            ({"network": f"{place}a/b"}, "names a place")
            for place in ("hf-hub:", "local-dir:", "timm/x:", "https://x/")
        ],
        ({"kwargs": {**SMALL, "num_classes": -1}, "classes": []}, "resnet18"),
        ({"kwargs": {**SMALL, "num_classes": 10**7}, "classes": []}, "larger network than its"),
        ({"kwargs": {**SMALL, "layers": [10**6, 1, 1, 1]}}, "larger network than its"),
        ({"kwargs": {**SMALL, "channels": [9, 9, 640, 640], "layers": [1, 1, 30, 30]}}, "larger network than its"),
        ({"kwargs": {**SMALL, "layers": "abcd"}}, "cannot be built with"),
        ({"kwargs": {**SMALL, "block": "os.system"}}, "cannot be built with"),
        ({"kwargs": {**SMALL, "act_layer": "__class__"}}, "cannot be built with"),
        ({"kwargs": {**SMALL, "norm_layer": {}}}, "cannot be built with"),
        ({"kwargs": {**SMALL, "channels": [0, 0, 0, 0]}}, "resnet18"),
        ({"input": {**INPUT, "size": [10**6, 10**6]}}, "size must be two whole numbers from 1 to 16384"),
        ({"input": {**INPUT, "size": [True, 5]}}, "size must be"),
        ({"input": {**INPUT, "std": [0, 0, 0]}}, "std positive"),
        ({"input": {**INPUT, "mean": [0.5]}}, "one number a channel"),
        ({"input": {**INPUT, "interpolation": "__class__"}}, "interpolation must be one of"),
        ({"input": {**INPUT, "interpolation": "random"}}, "interpolation must be one of"),
        ({"input": {**INPUT, "crop_mode": "x"}}, "crop_mode must be one of"),
        ({"classes": ["a"] * 9}, "names 9 classes for 3 outputs"),
        ({"classes": ["a", "\ud83d", "c"]}, "a lone surrogate"),
        ({"classes": ["a", " ", "c"]}, "a class has no name"),
        ({"version": True}, "version True"),
        ({"version": float("nan")}, "version nan"),
        ({"elastic": {"x": 1}}, "resnet18"),
        ({"elastic": {"spec": {"scales": [1, 10**9]}, "blocks": ["layer1.1"]}}, "resnet18"),
    ],
)
def test_a_card_that_asks_for_too_much_is_refused(changes, says, saved, tmp_path, monkeypatch):
    """Nothing is opened, nobody is called, no memory is taken for it."""
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(timm.models._builder, "load_pretrained", None)
    path = hostile(tmp_path / "bad.safetensors", saved[1].state_dict(), changes)
    began = time.monotonic()
    with pytest.raises(ValueError, match=says) as caught:
        load_checkpoint(path)
    assert "bad.safetensors" in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert time.monotonic() - began < 20  # not for ever


@pytest.mark.parametrize(
    "text",
    [
        "[" * 10**6,
        '{"a":' * 10**6,
        '{"version": 1, "kwargs": ' + "[" * 500 + "]" * 500 + "}",
        '{"version": 1, "network": "resnet18", "network": "resnet34"}',
    ],
)
def test_a_card_that_is_nested_deeply_or_says_two_things(text, tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "deep.safetensors", metadata={"elastic_cnn": text})
    with pytest.raises(ValueError, match=r"deep\.safetensors: (not a network card|its card)"):
        read_card(tmp_path / "deep.safetensors")


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_another_kind_of_numbers(kind, saved, tmp_path):
    state = {name: t.to(kind) if t.is_floating_point() else t for name, t in saved[1].state_dict().items()}
    try:
        save_file(state, tmp_path / "x.safetensors", metadata={"elastic_cnn": CARD.to_json()})
    except KeyError:
        pytest.skip(f"this safetensors writes no {kind}")
    with pytest.raises(
        ValueError, match=rf"x\.safetensors: the tensor \S+ is of {kind}, the network's of torch\.float32"
    ):
        load_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_weights_of_another_precision_are_taken(kind, saved, tmp_path):
    """People halve networks to share them: the network computes in its own precision, from the rounded weights."""
    state = {name: t.to(kind) if t.is_floating_point() else t for name, t in saved[1].state_dict().items()}
    save_file(state, tmp_path / "x.safetensors", metadata={"elastic_cnn": CARD.to_json()})
    network, _ = load_checkpoint(tmp_path / "x.safetensors")
    assert all(torch.equal(own, state[name].to(own.dtype)) for name, own in network.state_dict().items())


def test_variances_below_zero(saved, tmp_path):
    state = saved[1].state_dict()
    state["bn1.running_var"] = -state["bn1.running_var"]
    save_file(state, tmp_path / "x.safetensors", metadata={"elastic_cnn": CARD.to_json()})
    with pytest.raises(ValueError, match=r"bn1\.running_var holds variances below 0"):
        load_checkpoint(tmp_path / "x.safetensors")
