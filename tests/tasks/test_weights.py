"""Networks of recipes: initialisation, initial weights and the report of what did not fit."""

import copy
import math
import re
import zipfile

import pytest
import torch
from data_page import rows, section_text
from safetensors.torch import save_file
from torch import nn

from elastic_cnn.tasks import weight_files
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.weight_files import read_state_dict
from elastic_cnn.tasks.weights import he_fan_in, load_weights, make_network
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


WEIGHTS = section_text("Weights")
SENTENCES = {happens for _, happens in rows("Weights")}


def test_the_page_names_what_is_taken():
    taken = {word for line in WEIGHTS.splitlines() if line.endswith("taken |") for word in re.findall(r"`(\w+)`", line)}
    assert taken == set(weight_files.HOLDERS)
    for words in (weight_files.AVERAGED, weight_files.WRAPPERS, (weight_files.COMPILED,)):
        (line,) = [line for line in WEIGHTS.splitlines() if f"`{words[0]}`" in line and line.startswith("| ")]
        assert set(words) <= set(re.findall(r"`(.*?)`", line))


@pytest.mark.parametrize(
    "content",
    [
        lambda n: n,
        lambda n: {"epoch": 3, "lr": 0.1},
        lambda n: {"task": {}, "progress": {}, "optimizer": {}},
        lambda n: {name: t * math.nan for name, t in n.state_dict().items() if name == "fc.weight"},
        None,
    ],
)
def test_the_page_has_the_very_sentences(content, tmp_path):
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    if content is not None:
        torch.save(content(network), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth") as caught:
        load_weights(network, tmp_path / "w.pth")
    said = str(caught.value).replace(str(tmp_path / "w.pth"), "FILE").replace(str(tmp_path), "FOLDER")
    assert f"`{re.sub(r'checkpoint .Unsupported.*?.; code', 'checkpoint (...); code', said)}`" in SENTENCES


def test_the_kind_of_a_file_is_told_by_what_is_in_it(tmp_path):
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    save_file(network.state_dict(), tmp_path / "w.bin")
    assert str(load_weights(network, tmp_path / "w.bin")).endswith("tensors loaded")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:  # as torch.jit.save lays it out
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"w/{name}", b"3")
    for source in (tmp_path / "w.pt", "https://example.org/a.pth"):
        with pytest.raises(ValueError, match=r"TorchScript|address") as caught:
            load_weights(network, source)
        assert f"`{str(caught.value).replace(str(tmp_path / 'w.pt'), 'FILE')}`" in SENTENCES


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "resnext_small_elastic", "weights": "timm"},
        {"network_kwargs": {"pretrained": True}},
        {"network_kwargs": {"num_classes": 5}},
    ],
)
def test_so_it_has_of_recipes(changes):
    with pytest.raises(ValueError, match=r"weights|classes") as caught:
        make_network(Recipe(**{"network": "resnet18", **changes}), ("a", "b"))
    assert f"`{caught.value}`" in SENTENCES


def test_a_classifier_is_no_start_of_a_segmentation_without_an_architecture(tmp_path):
    classifier = create_model("resnet10t", num_classes=2, **KWARGS)
    card = NetworkCard("resnet10t", {"num_classes": 2, **KWARGS}, classes=("a", "b"))
    path = str(save_checkpoint(tmp_path / "w.safetensors", classifier, card))
    with pytest.raises(ValueError, match="is for classification") as caught:
        make_network(Recipe(task="segmentation", weights=path), ("sky", "tree", "road"))
    assert f"`{str(caught.value).replace(path, 'FILE')}`" in SENTENCES


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def test_files_that_are_no_weights_are_refused_without_running_code(tmp_path, capsys):
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    torch.save(Code(), tmp_path / "code.pth")
    with pytest.raises(ValueError, match="code in a file is never run"):
        load_weights(network, tmp_path / "code.pth")
    assert "code ran" not in capsys.readouterr().out
    (tmp_path / "text.pth").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(
        {name: t * math.nan for name, t in network.state_dict().items() if t.is_floating_point()}, tmp_path / "nan.pth"
    )
    torch.save(create_model("vit_tiny_patch16_224", depth=1).state_dict(), tmp_path / "other.pth")
    for name, message in (
        ("text", "no checkpoint|not a readable checkpoint"),
        ("list", "holds a list instead of a dict"),
        ("nan", "not finite"),
        ("other", "the weights do not fit this network"),
        ("missing", r"no checkpoint at .*missing\.pth: give a run folder, .* or another file of weights \(\.pth, "),
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
    one, two = (read_state_dict(tmp_path / name).tensors for name in ("w.pth", "w.safetensors"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def wrapped(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def spoiled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As many tensors that must not be taken."""
    return {name: tensor + 9 for name, tensor in state.items()}


FILES = {  # as frameworks and people write them: of the state dict s
    "plain": lambda s: s,
    "timm": lambda s: {"state_dict": s, "epoch": 3, "arch": "x", "optimizer": {"state": {}, "param_groups": []}},
    "compiled": lambda s: wrapped("_orig_mod.", s),
    "compiled, processes": lambda s: wrapped("_orig_mod.module.", s),
    "processes, compiled": lambda s: wrapped("module._orig_mod.", s),
    "a compiled part": lambda s: {n.replace("layer1.", "layer1._orig_mod.", 1): t for n, t in s.items()},
    "Lightning": lambda s: {"state_dict": wrapped("model.", s), "hyper_parameters": {"lr": 0.1}},
    "Lightning with a loss": lambda s: {"state_dict": {**wrapped("net.", s), "criterion.weight": torch.ones(3)}},
    "Lightning, compiled": lambda s: {"state_dict": wrapped("network._orig_mod.", s), "callbacks": {}},
    "a tutorial": lambda s: {"model_state_dict": s, "optimizer_state_dict": {}, "epoch": 1, "loss": torch.ones(())},
    "CIFAR": lambda s: {"net": wrapped("module.", s), "acc": 93.1, "epoch": 7},
    "detectron": lambda s: {"model": wrapped("backbone.", s), "iteration": 3, "__author__": "x"},
    "averages of timm": lambda s: {"state_dict": spoiled(s), "state_dict_ema": s},
    "averages of DINO": lambda s: {"model": spoiled(s), "model_ema": wrapped("module.", s), "args": None},
    "averages in a wrapper": lambda s: {"state_dict": spoiled(s), "ema": {"module": s, "decay": 0.9}},
    "weights": lambda s: {"weights": s},
    "params": lambda s: {"params": wrapped("module.net.", s)},
    "nested": lambda s: {"model": {"state_dict": wrapped("module.model.", s)}, "step": 2},
    "backbone and head": lambda s: {"state_dict": {**wrapped("backbone.", s), "head.fc.weight": torch.ones(2, 16)}},
    "an extra state": lambda s: {**s, "bn1._extra_state": {"x": 1}},
    "half": lambda s: {name: t.half() if t.is_floating_point() else t for name, t in s.items()},
}


@pytest.mark.parametrize("kind", FILES)
def test_weights_as_people_have_them(kind, tmp_path):
    source = create_model("resnet10t", num_classes=5, **KWARGS)
    state = source.state_dict()
    torch.save(FILES[kind](dict(state)), tmp_path / "w.pth")
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    report = load_weights(network, tmp_path / "w.pth")
    loaded = network.state_dict()
    assert set(report.loaded) == set(state)
    for name, tensor in state.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-3 if kind == "half" else 0, atol=1e-6)
    assert ("ema" in str(report)) == kind.startswith("averages"), str(report)
    assert ("unused" in str(report)) == (kind in ("Lightning with a loss", "backbone and head"))


def test_a_network_with_the_names_of_wrappers_keeps_them(tmp_path):
    """Its own `backbone.` and `net.` are no wrappers."""
    whole = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 1), "net": nn.Conv2d(4, 4, 1)})
    part = nn.ModuleDict({"net": nn.ModuleDict({"net": nn.Conv2d(3, 4, 1)})})
    for network in (whole, part):
        torch.save({"state_dict": wrapped("model.", network.state_dict())}, tmp_path / "w.pth")
        other = copy.deepcopy(network)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        assert not load_weights(other, tmp_path / "w.pth").new
        assert same(other, network.state_dict(), network.state_dict())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda n: n, r"code in a file is never run. Load it .*, and save its state_dict\(\) alone"),
        (lambda n: {"model": n}, r"save its state_dict\(\) alone"),
        (lambda n: {"epoch": 3, "lr": 0.1}, r"does not hold named tensors.* it holds epoch \(int\), lr \(float\)"),
        (lambda n: {"model": "resnet50", "state_dict": {}}, r"it holds model \(str\), state_dict \(dict\)"),
        (lambda n: {}, "it holds nothing"),
        (lambda n: {"task": {}, "progress": {}, "optimizer": {}}, "the state of a run: give the run's folder"),
        (lambda n: torch.zeros(3), "holds a Tensor instead of a dict"),
        (lambda n: {"head.weight": torch.ones(2)}, "the weights do not fit this network. .*unused: head.weight"),
    ],
)
def test_what_holds_no_weights_says_what_to_do(content, says, tmp_path, capfd):
    network = create_model("resnet10t", num_classes=5, **KWARGS)
    torch.save(content(network), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=says) as caught:
        load_weights(network, tmp_path / "w.pth")
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "w.pth" in str(caught.value)
