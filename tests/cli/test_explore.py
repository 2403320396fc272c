"""`elastic explore` by its command line."""

import os
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

import elastic_cnn
from elastic_cnn.cli import main
from elastic_cnn.cli.explore import METHODS
from elastic_cnn.policy.explorer import layout
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, write_part
from elastic_cnn.zoo.checkpoint import InputSpec, NetworkCard, save_checkpoint


@pytest.fixture
def policy(tmp_path):
    """A table of eight photos, one of which is gone."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    rows = []
    for i in range(8):
        if i:
            Image.new("RGB", (40, 30)).save(tmp_path / "photos" / f"{i}.jpg")
        answer = {"label": "a", "prediction": "a", "confidence": 0.5, "correct": True, "object_sizes": None}
        rows.append({"id": i, "path": f"{i}.jpg", **answer, "scores": rng.normal(size=2)})
    blocks = (BlockInfo("one", (1, 2), 1), BlockInfo("two", (1, 2), 2))
    info = PolicyInfo("classification", ("a", "b"), blocks, "net", data_root=str(tmp_path / "photos"))
    write_part(tmp_path / "policy.parquet", rows, info)
    return tmp_path / "policy.parquet"


def test_the_command_offers_the_maps_that_there_are():
    assert METHODS == layout.METHODS


def test_builds_beside_the_table_and_counts_what_is_missing(policy, capsys):
    assert main(["explore", str(policy.parent), "--map", "pca"]) == 0
    out, err = capsys.readouterr()
    assert (policy.parent / "explorer" / "index.html").is_file()
    assert "8 photos, map by Principal components" in out
    assert "warning: 1 of 8 photos cannot be shown: no such file" in err


def test_open_starts_the_browser_on_the_file(policy, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    assert main(["explore", str(policy), "-o", str(tmp_path / "x"), "--map", "pca", "--picture", "0", "--open"]) == 0
    assert opened == [(tmp_path / "x" / "index.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "name a policy table"),
        (["--serve"], "--checkpoint CKPT"),
        (["{policy}", "--checkpoint", "x.safetensors"], "add --serve"),
        (["{folder}/none.parquet"], "none.parquet"),
        (["{policy}", "-o", "{folder}/photos"], "exists already"),
        (["{policy}", "-o", "{folder}/photos", "--overwrite"], "no explorer's folder"),
        (["{policy}", "--thumbnail", "7"], "not 7"),
        (["--serve", "--checkpoint", "{folder}/no.safetensors"], "no.safetensors"),
        (["{policy}", "--photos", "{folder}/nowhere"], "nowhere"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_two(policy, capsys, arguments, word):
    given = [argument.format(policy=policy, folder=policy.parent) for argument in arguments]
    assert main(["explore", *given]) == 2
    err = capsys.readouterr().err
    assert err.startswith("elastic: error: ")
    assert err.count("\n") == 1
    assert word in err


def test_serves_photos_to_try_without_a_table(tmp_path):
    torch.manual_seed(0)
    kwargs = {"num_classes": 3, "channels": [8, 8, 8, 8], "layers": [2, 2, 1, 1]}
    network = elastic_cnn.create_model("resnext_small_elastic", **kwargs)
    card = NetworkCard("resnext_small_elastic", kwargs, classes=("a", "b", "c"), input=InputSpec(size=(32, 32)))
    checkpoint = save_checkpoint(tmp_path / "net.safetensors", network, card)
    command = [
        sys.executable,
        "-m",
        "elastic_cnn",
        "explore",
        "--serve",
        "--checkpoint",
        str(checkpoint),
        "--port",
        "0",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            url = server.stdout.readline().split()[0]
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{url}data/live.js") as reply:
                assert b"resnext_small_elastic" in reply.read()
        finally:
            server.terminate()
