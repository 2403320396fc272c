"""Weights that are published: which networks have some, and what is said where they cannot be had."""

import socket
import urllib.request
from contextlib import contextmanager

import pytest
from huggingface_hub import constants

from elastic_cnn.tasks.network_sources import hub_that_answers
from elastic_cnn.tasks.recipe import Recipe
from elastic_cnn.tasks.weights import make_network


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"network": "resnext_small_elastic", "weights": "timm"},
            "no published weights of resnext_small_elastic",
        ),
        ({"network": "resnet26s", "weights": "timm"}, "unknown network"),
        (
            {"network_kwargs": {"pretrained": True}},
            r"argument pretrained=True would .*: name the architecture",
        ),
        ({"network_kwargs": {"checkpoint_path": "x.pth"}}, "argument checkpoint_path='x.pth' would load"),
        ({"network_kwargs": {"x": "hf-hub:timm/resnet18"}}, "names a place to load from.*: name the architecture"),
        ({"network": "resnext_small", "network_kwargs": {"block": "x"}}, "cannot be built with"),
    ],
)
def test_networks_whose_weights_cannot_be_had(changes, says):
    with pytest.raises(ValueError, match=says):
        make_network(Recipe(**{"network": "resnet18", **changes}), ("a", "b"))


def test_published_weights_that_cannot_be_fetched(monkeypatch):
    def offline(*_, **__):
        raise OSError("We couldn't connect\nto load the file")

    monkeypatch.setattr("elastic_cnn.tasks.network_sources._answers", lambda address: True)
    monkeypatch.setattr("elastic_cnn.tasks.weights.create_model", offline)
    says = r"weights=timm: .* of resnet18 cannot be had from here \(We couldn't connect\): .* give weights=FILE"
    with pytest.raises(ValueError, match=says):
        make_network(Recipe(network="resnet18", weights="timm"), ("a", "b"))
    monkeypatch.setattr("elastic_cnn.tasks.network_sources.load_model_config_from_hf", offline)
    with pytest.raises(
        ValueError, match=r"network hf-hub:timm/x cannot be had from here \(We couldn't connect\): download"
    ):
        make_network(Recipe(network="hf-hub:timm/x"), ("a", "b"))


def test_a_hub_that_does_not_answer_is_asked_nothing(monkeypatch, tmp_path):
    """By itself, or behind a proxy that is gone; what was downloaded before is taken all the same."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        gone = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with hub_connection(monkeypatch, gone), hub_that_answers():
            assert not constants.HF_HUB_OFFLINE
    for endpoint, proxy in ((gone, None), ("http://hub.invalid", gone)):
        with hub_connection(monkeypatch, endpoint, proxy):
            for recipe in (Recipe(network="resnet18", weights="timm"), Recipe(network="hf-hub:timm/x")):
                with pytest.raises(
                    ValueError, match=r"cannot be had from here \(\S+ does not answer\): .*weights=FILE"
                ):
                    make_network(recipe, ("a", "b"))
            with hub_that_answers():
                assert constants.HF_HUB_OFFLINE
            assert not constants.HF_HUB_OFFLINE


@contextmanager
def hub_connection(monkeypatch, endpoint, proxy=None):
    """The Hub at another address, behind no proxy but `proxy`."""
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(urllib.request, "getproxies", lambda: {"http": proxy} if proxy else {})
        patch.setattr(urllib.request, "proxy_bypass", lambda host: False)
        yield
