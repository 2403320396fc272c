"""Sharing networks: what is written loads again, by timm and by this package, and computes the same."""

import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import markdown
import pytest
import timm
import torch
import yaml
from citizens import FAMILIES, SMALL, images
from random_norms import random_norms

from elastic_cnn import ElasticSpec, create_model, elasticize, load_checkpoint
from elastic_cnn.zoo import InputSpec, NetworkCard
from elastic_cnn.zoo.hub import push_to_hf_hub, save_for_hf
from elastic_cnn.zoo.model_card import model_card

CLASSES = ("cat", "dog", "owl")
INPUT = InputSpec(size=(64, 96), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic", crop_pct=0.9)
INFO = {"results": {"top1_error": 0.21875, "images": 640, "plot": "a.png"}, "epoch": 7, "recipe": {"lr": 0.1}}


def share(name: str, folder: Path, elastic: bool = False, **kwargs: Any) -> Any:
    """A network of that name, written to `folder`."""
    kwargs = {"num_classes": len(CLASSES), **kwargs}
    network = create_model(name, **kwargs)
    network = random_norms(elasticize(network) if elastic else network)
    card = NetworkCard(name, kwargs, classes=CLASSES, input=INPUT, info=INFO)
    assert save_for_hf(network, card, folder) == folder
    return network


def same(first: Any, second: Any) -> None:
    """Equal to the last bit: the same operations on the same numbers."""
    assert first.state_dict().keys() == second.state_dict().keys()
    torch.testing.assert_close(first.eval()(images(2, 3, 64, 70)), second.eval()(images(2, 3, 64, 70)), rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_local_folder_of_our_networks(name: str, tmp_path: Path) -> None:
    network = share(name, tmp_path / "shared", **SMALL[name])
    loaded = timm.create_model(f"local-dir:{tmp_path / 'shared'}", pretrained=True)
    same(loaded, network)
    assert loaded.elastic_report.converted == network.elastic_report.converted
    same(load_checkpoint(tmp_path / "shared" / "model.safetensors")[0], network)


@pytest.mark.parametrize("base", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_local_folder_of_elasticized_networks(base: str, tmp_path: Path) -> None:
    network = share(base, tmp_path / "shared", elastic=True)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'shared'}", pretrained=True)
    same(loaded, network)
    assert loaded.elastic_report.converted == network.elastic_report.converted
    same(load_checkpoint(tmp_path / "shared" / "model.safetensors")[0], network)


def test_what_timm_reads(tmp_path: Path) -> None:
    """Preprocessing and class names, as the card says; other heads, as timm's own networks take them."""
    share("resnext50_elastic", tmp_path / "shared", **SMALL["resnext50_elastic"])
    source = f"local-dir:{tmp_path / 'shared'}"
    loaded = timm.create_model(source, pretrained=True)
    config = timm.data.resolve_model_data_config(loaded)
    assert config["input_size"] == (3, 64, 96)
    assert tuple(config["mean"]) == INPUT.mean
    assert tuple(config["std"]) == INPUT.std
    assert config["interpolation"] == "bicubic"
    assert config["crop_pct"] == 0.9
    assert loaded.pretrained_cfg["label_names"] == list(CLASSES)
    other = timm.create_model(source, pretrained=True, num_classes=5, in_chans=1).eval()
    assert other(images(1, 1, 64, 64)).shape == (1, 5)
    torch.testing.assert_close(other.layer1.state_dict(), loaded.layer1.state_dict(), rtol=0, atol=0)
    assert len(timm.create_model(source, pretrained=True, features_only=True)(images(1, 3, 64, 64))) == 5


def test_chosen_division_survives(tmp_path: Path) -> None:
    spec = ElasticSpec(shares=(0.75, 0.25), upsample="nearest")
    network = share("resnext50_elastic", tmp_path / "shared", spec=spec.to_dict(), **SMALL["resnext50_elastic"])
    assert network.elastic_spec == spec
    loaded = timm.create_model(f"local-dir:{tmp_path / 'shared'}", pretrained=True)
    assert loaded.elastic_spec == spec
    same(loaded, network)


def test_elasticized_entry() -> None:
    network = timm.create_model("elasticized", base="test_efficientnet", num_classes=4)
    assert network.elastic_report.converted
    assert network(images(2, 3, 64, 64)).shape == (2, 4)
    features = timm.create_model("elasticized", base="test_efficientnet", features_only=True)(images(1, 3, 64, 64))
    assert len(features) >= 4
    with pytest.raises(TypeError):
        timm.create_model("elasticized", base="test_resnet", no_such_argument=1)


def test_model_card(tmp_path: Path) -> None:
    share("resnext50_elastic", tmp_path / "shared", **SMALL["resnext50_elastic"])
    text = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "license": "apache-2.0",
        "tags": ["image-classification", "elastic-cnn", "timm"],
    }
    for line in ("# shared", "| Elastic blocks | 4 |", "| Classes | 3: cat, dog, owl |", "| top1_error | 0.2188 |"):
        assert line in body.splitlines()
    assert "after epoch 7" in body
    assert '"lr": 0.1' in body
    assert "a.png" not in body  # results are numbers
    assert "$" not in text  # every blank of the template is filled


def test_segmentation_networks_load_by_their_checkpoint(tmp_path: Path) -> None:
    kwargs = {"num_classes": 3, "backbone": "resnet50", **SMALL["resnext50_elastic"], "layers": (1, 1, 1, 3)}
    network = create_model("deeplabv3", **kwargs).eval()
    card = NetworkCard("deeplabv3", kwargs, task="segmentation", input=INPUT)
    folder = save_for_hf(network, card, tmp_path / "shared")
    same(load_checkpoint(folder / "model.safetensors")[0], network)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-segmentation" in text
    assert "load_checkpoint" in text
    assert json.loads((folder / "config.json").read_text())["network"] == "deeplabv3"


def test_bad_input_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    network = share("resnext50_elastic", folder, **SMALL["resnext50_elastic"])
    card = load_checkpoint(folder / "model.safetensors")[1]
    with pytest.raises(ValueError, match="exists already"):
        save_for_hf(network, card, folder)
    save_for_hf(network, card, folder, overwrite=True)
    with pytest.raises(ValueError, match=r"builds another network.*fc\.bias"):
        save_for_hf(network, NetworkCard(card.network, {**card.kwargs, "num_classes": 9}), tmp_path / "other")


class HubWithoutNetwork:
    """Stands in for `huggingface_hub.HfApi`: keeps what is uploaded."""

    calls: dict[str, Any]
    readme_exists = False

    def __init__(self, token: str | None, library_name: str, library_version: str) -> None:
        type(self).calls = {"token": token, "library_name": library_name}

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> SimpleNamespace:
        self.calls["create"] = (repo_id, private, exist_ok)
        return SimpleNamespace(repo_id=f"someone/{repo_id}")

    def file_exists(self, repo_id: str, filename: str, revision: str | None) -> bool:
        assert (repo_id, filename) == ("someone/pets", "README.md")
        return self.readme_exists

    def upload_folder(self, repo_id: str, folder_path: str, **options: Any) -> str:
        self.calls["files"] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.calls["upload"] = {"repo_id": repo_id, **options}
        return "done"


@pytest.mark.parametrize("readme_exists", [False, True])
def test_push(readme_exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is uploaded loads from the Hub's cache by `hf-hub:`; an existing README.md stays."""
    kwargs = {"num_classes": 3, **SMALL["resnext50_elastic"]}
    network = random_norms(create_model("resnext50_elastic", **kwargs))
    monkeypatch.setattr(HubWithoutNetwork, "readme_exists", readme_exists)
    monkeypatch.setattr(huggingface_hub, "HfApi", HubWithoutNetwork)
    card = NetworkCard("resnext50_elastic", kwargs, classes=CLASSES)
    assert push_to_hf_hub(network, card, "pets", token="secret", private=True, create_pr=True) == "done"
    calls = HubWithoutNetwork.calls
    assert calls["create"] == ("pets", True, True)
    assert calls["token"] == "secret"
    assert calls["upload"]["repo_id"] == "someone/pets"
    assert calls["upload"]["create_pr"] is True
    assert calls["upload"]["ignore_patterns"] == (["README.md"] if readme_exists else None)
    assert set(calls["files"]) == {"config.json", "model.safetensors", "README.md"}
    assert not any(b"secret" in content for content in calls["files"].values())

    def download(repo_id: str, filename: str, **options: Any) -> str:
        assert repo_id == "someone/pets"
        if filename not in calls["files"]:
            raise huggingface_hub.errors.EntryNotFoundError(filename)
        (tmp_path / filename).write_bytes(calls["files"][filename])
        return str(tmp_path / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    same(timm.create_model("hf-hub:someone/pets", pretrained=True), network)


def test_a_network_that_would_not_load_is_not_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", HubWithoutNetwork)
    HubWithoutNetwork.calls = {}
    network = create_model("resnext50_elastic", **SMALL["resnext50_elastic"])
    with pytest.raises(ValueError, match="builds another network"):
        push_to_hf_hub(network, NetworkCard("resnext50_elastic"), "pets")
    assert "create" not in HubWithoutNetwork.calls


HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](https://example.org/x)",
    "a|b", "`code`", "*bold*", "__init__", "_x_", "# head", "https://example.org", "www.example.org", "a\nb\n\n# c",
    "&lt;b&gt;", "\\\\*", "~~gone~~", "---", "C#", "<!-- x", "$title", "Käfer 犬",
)  # fmt: skip


class Shown(HTMLParser):
    """The texts of headings and table cells as a reader sees them, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(markdown.markdown(text, extensions=["tables", "fenced_code"]))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags |= {tag, *(name for name, _ in attrs)}
        if tag in ("td", "h1", "h2", "p"):
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


@pytest.mark.parametrize("word", HOSTILE)
def test_what_others_wrote_is_text_in_a_model_card(word: str) -> None:
    """A reader of Markdown shows titles, licences, class names, results and epochs as they were written."""
    network = create_model("resnet10t", num_classes=2, stem_width=8, channels=[8, 8, 8, 8]).eval()
    info = {"results": {word: 0.5}, "epoch": word, "recipe": {word: f"```\n{word}\n```"}}
    card = NetworkCard("resnet10t", {}, classes=(word, "bee"), input=INPUT, info=info)
    text = model_card(network, card, word, f"local-dir:{word}", word)
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert values["license"] == word
    assert set(values) == {"library_name", "pipeline_tag", "license", "tags"}
    shown = Shown(body)
    texts = [text.strip() for text in shown.texts]
    line = " ".join(word.split())
    assert texts.count(line) == 2  # the title, and the key of the result
    assert f"2: {line}, bee" in texts
    assert f"Measured on the validation split after epoch {line}." in texts
    assert shown.tags <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "class"}
