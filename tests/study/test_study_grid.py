"""Study files: what they say, what is refused, and that those that ship can be run."""

import functools
import json
from pathlib import Path

import pytest
import torch

from elastic_cnn.cli import main
from elastic_cnn.nn import ElasticBranches
from elastic_cnn.study.grid import load_study
from elastic_cnn.study.results import config_of, key_of
from elastic_cnn.study.runner import Storage, all_runs, list_runs, source_runs
from elastic_cnn.zoo import create_model

STUDIES = Path(__file__).resolve().parents[2] / "studies"
SHIPPED = sorted([*STUDIES.glob("*.yaml"), *STUDIES.glob("full/*.yaml")])

TEXT = """
title: tiny
data: {kind: digits, train: 32, test: 20, sizes: [8, 16]}
recipes:
  plain: {recipe: digits_demo, views: 64, overrides: [schedule.warmup_epochs=0.1]}
  slow: {recipe: digits_demo, views: 64, overrides: [schedule.warmup_epochs=0.1, optimizer.lr=0.0001]}
seeds: [3, 4]
networks:
  base: {network: resnext_small}
  elastic: {network: resnext_small_elastic, kwargs: {drop_rate: 0.1}, equal_time_to: base}
metric: top1_error
lower_is_better: true
comparisons:
  - {network: elastic, against: base}
"""


def write(tmp_path, text=TEXT, name="tiny.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_study_is_all_combinations_seed_by_seed(tmp_path):
    study = load_study(write(tmp_path))
    names = [run.name for run in study.runs()]
    assert names[:4] == ["base-plain-seed3", "elastic-plain-seed3", "base-slow-seed3", "elastic-slow-seed3"]
    assert len(names) == len(set(names)) == 8
    recipe = study.runs()[3].make_recipe()
    assert (recipe.seed, recipe.epochs, recipe.optimizer.lr, recipe.network) == (3, 1, 1e-4, "resnext_small_elastic")
    assert recipe.network_kwargs == {"drop_rate": 0.1}


def test_a_run_is_known_by_its_training_form_only_where_that_can_differ(tmp_path):
    def key(overrides):
        text = TEXT.replace("[schedule.warmup_epochs=0.1]", f"[schedule.warmup_epochs=0.1, {overrides}]")
        run = load_study(write(tmp_path, text)).runs()[0]
        return key_of(config_of(run, 64))

    assert key("fused=auto") != key("fused=never")
    assert key("fused=auto, precision=bf16-mixed") != key("fused=never, precision=bf16-mixed")
    assert key("fused=auto, precision=16-mixed") == key("fused=never, precision=16-mixed")
    assert len({key("fused=never"), key("fused=never, freeze=1"), key("fused=never, freeze=2")}) == 3
    assert key("fused=never, freeze=0") == key("fused=never")


def test_runs_of_several_studies_come_seed_by_seed(tmp_path):
    studies = [load_study(write(tmp_path)), load_study(write(tmp_path, TEXT, "other.yaml"))]
    assert [run.seed for run in all_runs(studies)] == [3] * 8 + [4] * 8
    assert {run.network for run in all_runs(studies, ["base"])} == {"base"}
    storage = Storage(tmp_path / "results", tmp_path / "work", only=("base",))
    assert list_runs(studies[:1], storage)[0].split() == ["missing", "tiny/base-plain-seed3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("metric:", "metrik:"), "line 11: unknown key 'metrik'; did you mean metric"),
        (("network: resnext_small}", "netwerk: resnext_small}"), "netwerk'; did you mean networks.base.network"),
        (("against: base", "against: bas"), r"no network 'bas'; did you mean base"),
        (("equal_time_to: base", "equal_time_to: bose"), r"no network 'bose'; did you mean base"),
        (("recipe: digits_demo, views", "recipe: digits_dem, views"), "'digits_dem'; did you mean digits_demo"),
        (("optimizer.lr=", "optimizer.rl="), r"unknown key 'optimizer.rl'; did you mean optimizer.lr"),
        (("kind: digits,", "kind: photos,"), "need a folder"),
        (("kind: digits,", "kind: coco, folder: x,"), "is for classification, data of the kind coco for multilabel"),
        (("views: 64", "views: 0"), "must be at least 1"),
        (("seeds: [3, 4]", "seeds: [3, 3]"), "seeds must be different"),
        (("schedule.warmup_epochs=0.1]", "schedule.warmup_epochs=2]"), "set schedule.warmup_epochs below"),
        (("  base: {", "  ba/se: {"), "names files"),
        (("warmup_epochs=0.1]", "warmup_epochs=0.1, options.erase=0.2]"), "take no erase"),
        (("data: {", "dato: {"), "unknown key 'dato'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, capsys, change, message):
    path = write(tmp_path, TEXT.replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        load_study(path)
    assert main(["study", str(path), "--results", str(tmp_path / "results")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_commands_that_make_no_sense(tmp_path, capsys):
    path = str(write(tmp_path))
    places = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    for arguments, message in (
        ([path.replace("tiny", "tinny")], "did you mean"),
        ([path, "--only", "elastik"], "did you mean elastic"),
        ([path, "--processes", "0"], "must be at least 1"),
        (["report"], "makes no use of --work"),
        ([path, "--list", "--threads", "2"], "makes no use of --threads"),
    ):
        assert main(["study", *arguments, *places]) == 2
        assert message in capsys.readouterr().err
    assert main(["study", path, "--list", *places]) == 0
    assert capsys.readouterr().out.count("missing") == 8


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(STUDIES)))
def test_shipped_studies_parse_and_their_networks_build(path):
    study = load_study(path)
    assert study.question
    for run in study.runs():
        assert all(source.seed == run.seed for source in source_runs(run).values())
    for run in study.runs()[: len(study.networks)]:
        recipe = run.make_recipe()
        assert builds(recipe.network, json.dumps(recipe.network_kwargs)) == ("elastic" in recipe.network)


@functools.cache
def builds(name, kwargs):
    """Build a network (once for all studies) and run it; whether it is elastic."""
    network = create_model(name, num_classes=10, **json.loads(kwargs))
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape[:2] == (1, 10)
    return any(isinstance(module, ElasticBranches) for module in network.modules())


def test_specs_by_stage_reach_the_blocks():
    shares = {1: {"shares": [0.25, 0.75]}, "2": {"shares": [0.5, 0.5]}}
    network = create_model("resnext_small_selastic", spec=shares)
    stages = {name.split(".")[0] for name, m in network.named_modules() if isinstance(m, ElasticBranches)}
    assert stages == {"layer1", "layer2"}
    branches = network.layer1[1].branches if hasattr(network.layer1[1], "branches") else None
    assert branches is None or branches.high.transform[0].out_channels < branches.low[0].transform[0].out_channels
