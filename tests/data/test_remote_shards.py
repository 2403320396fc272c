"""Shards on a web server: the same samples as on a disk, each once an epoch, whatever breaks on the way."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from shard_server import CLASSES, serving, write_shards

from elastic_cnn.cli import main
from elastic_cnn.data import remote, shards
from elastic_cnn.data.image_folder import ImageFolder
from elastic_cnn.data.sampler import TestBatches, TrainBatches, make_loader
from elastic_cnn.tasks.console import Console, Unreadable
from elastic_cnn.tasks.recipe import load_recipe
from elastic_cnn.tasks.settings import Settings
from elastic_cnn.tasks.training import train

RECIPE = """\
network: resnext_small_elastic
network_kwargs: {channels: [8, 8, 8, 8], layers: [2, 2, 1, 1]}
image_size: 32
epochs: 1
batch_size: 8
optimizer: {lr: 0.05}
"""


def number_of(picture) -> torch.Tensor:
    """The number that the photo's first pixel holds, where a task has the picture's tensor."""
    red, green, _ = np.asarray(picture)[0, 0].tolist()
    return torch.tensor(256 * red + green)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """24 photos to train on in 4 shards, 11 to test on in 3, and their listing."""
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, "train", 24, 7)
    write_shards(root, "val", 11, 4)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    listing = {"train": ["train-{0000..0003}.tar"], "val": ["val-0000.tar", "val-{0001..0002}.tar"]}
    (root / "shards.json").write_text(json.dumps({**listing, "classes": CLASSES}))
    (root / "tiny.yaml").write_text(RECIPE)
    return root


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    with serving(folder) as server:
        yield server
        remote.close_connections()


def test_the_same_samples_as_on_a_disk(folder, server):
    here, there = (ImageFolder(f"wds/{place}", "train", number_of) for place in (folder, server.url))
    assert len(there) == len(here) == 24
    assert there.classes == here.classes == CLASSES
    assert there.path(0) == f"{server.url}/train-0000.tar:train00000.png"
    for index in range(24):
        assert there[index] == here[index] == {"image": torch.tensor(index), "target": index % 3}


def test_the_index_of_a_shard_is_kept(server):
    ImageFolder(f"wds/{server.url}", "train", number_of)
    first = len(server.requests)
    server.requests.clear()
    again = ImageFolder(f"wds/{server.url}", "train", number_of)
    assert len(server.requests) == 1 + 4 < first  # the listing, and whether each shard is still the same
    assert len(again) == 24


@pytest.mark.parametrize("place", ["disk", "server"])
@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 2), (2, 1), (3, 0), (4, 0)])
def test_every_sample_once_an_epoch(place, processes, workers, folder, server):
    """24 photos are a whole number of batches: nothing is left out. Testing counts each of 11 once as well."""
    samples = {
        split: ImageFolder(f"wds/{server.url if place == 'server' else folder}", split, number_of)
        for split in ("train", "val")
    }
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for rank in range(processes):
            batches = TrainBatches(24, 12, seed=3, rank=rank, world_size=processes)
            batches.start_at(epoch)
            for batch in make_loader(samples["train"], batches, seed=3, workers=workers):
                seen.update(batch["image"].tolist())
        assert seen == Counter(range(24))
    tested: Counter[int] = Counter()
    for rank in range(processes):
        for batch in make_loader(samples["val"], TestBatches(11, 2, rank, processes), seed=0, workers=workers):
            tested.update(batch["image"].tolist())
    assert tested == Counter(range(11))


def test_a_connection_that_breaks_is_taken_up_again(server):
    samples = ImageFolder(f"wds/{server.url}", "train", number_of)
    server.faults[:] = ["drop", "503", "short"]
    assert samples[5]["image"] == 5
    server.faults[:] = ["drop", "429"]
    samples.prefetch(range(24))
    requests = len(server.requests)
    assert [int(samples[index]["image"]) for index in range(24)] == list(range(24))
    assert len(server.requests) == requests  # all came together, before


def test_a_server_that_stays_broken_is_named(server):
    samples = ImageFolder(f"wds/{server.url}", "train", number_of)
    server.faults[:] = ["503"] * remote.ATTEMPTS
    with pytest.raises(OSError, match=r"train-0000\.tar cannot be read after 4 attempts: the server answers 503"):
        samples[0]
    server.faults[:] = ["403"]
    with pytest.raises(OSError, match="the server answers 403: check the address and your access"):
        samples[0]
    server.faults[:] = ["503"] * 200
    batch = next(iter(make_loader(samples, TestBatches(24, 12), seed=0, workers=1)))
    with pytest.raises(ValueError, match="the server answers 503"):  # met in a worker, told in the main process
        Unreadable().take(batch, Console())


def test_a_server_without_ranges_or_listing_is_refused(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving(folder, ranges=False) as server:
        arguments = ["train", str(folder / "tiny.yaml"), "-o", str(tmp_path / "run"), "--data"]
        assert main([*arguments, f"wds/{server.url}"]) == 2
        assert "does not answer range requests" in capfd.readouterr().err
        assert main([*arguments, f"wds/{server.url}/elsewhere"]) == 2
        assert "elsewhere/shards.json: the server answers 404" in capfd.readouterr().err
        remote.close_connections()


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        ("[]", "is not a listing"),
        ('{"train": [3]}', "must hold texts"),
        ('{"val": ["a.tar"]}', "lists no shards under 'train'"),
        ("{", "is not a listing"),
        ('{"train": "a.tar"}', "must be a list"),
    ],
)
def test_bad_listings(listing, says, tmp_path):
    (tmp_path / "shards.json").write_text(listing)
    with serving(tmp_path) as server:
        with pytest.raises(ValueError, match=says):
            ImageFolder(f"wds/{server.url}", "train", number_of)
        remote.close_connections()


def test_patterns_of_names():
    assert shards.expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert shards.expand("{0..1}/{0..1}") == ["0/0", "0/1", "1/0", "1/1"]
    assert shards.expand("plain.tar") == ["plain.tar"]


def test_training_and_policies_do_not_depend_on_where_the_shards_lie(folder, server, tmp_path):
    recipe, weights, tables = load_recipe(folder / "tiny.yaml"), [], []
    for name, place in (("disk", folder), ("server", server.url)):
        out = tmp_path / name
        train(recipe, f"wds/{place}", out, Settings(accelerator="cpu", workers=1))
        weights.append(load_file(out / "last.safetensors"))
        arguments = ["--data", f"wds/{place}", "-o", str(out / "policy"), "--part-size", "4", "--no-figures"]
        assert main(["policy", str(tmp_path / "disk"), *arguments, "--workers", "1"]) == 0
        tables.append(pyarrow.parquet.read_table(out / "policy" / "policy.parquet").replace_schema_metadata(None))
    assert all(torch.equal(weights[1][key], tensor) for key, tensor in weights[0].items())
    assert tables[0].num_rows == 11
    assert tables[1].drop_columns(["path"]).equals(tables[0].drop_columns(["path"]))
    assert tables[0]["path"].to_pylist() == tables[1]["path"].to_pylist()
