"""`elastic_cnn.train`, `evaluate`, `explore`: what the commands do, called from a program."""

import json

import pytest

import elastic_cnn
from elastic_cnn.functions import _overrides
from elastic_cnn.tasks.run_folder import RunFolder
from elastic_cnn.tasks.settings import Settings

CPU = Settings(accelerator="cpu")


def test_keys_become_what_the_command_line_would_say(tmp_path):
    keys = {"network": None, "epochs": 3, "options": {"split": 0.2, "background": [1, 2, 3]}, "convert": {}}
    assert _overrides(keys) == [
        "network=null", "epochs=3", "options.split=0.2", "options.background=[1, 2, 3]", "convert={}",
    ]  # fmt: skip


def test_a_program_trains_tests_and_looks(tiny, tmp_path):
    run = tmp_path / "run"
    summary = elastic_cnn.train(
        tiny / "tiny.yaml", tiny / "photos", run, CPU, epochs=2, optimizer={"lr": 0.01},
        network="resnext_small_elastic", network_kwargs={"channels": [8, 8, 8, 8]},
    )  # fmt: skip
    recipe = RunFolder(run).recipe()
    assert (recipe.epochs, recipe.optimizer.lr, recipe.optimizer.momentum) == (2, 0.01, 0.9)
    assert summary.epochs_done == 2
    assert "best in epoch" in summary._repr_html_()
    results = elastic_cnn.evaluate(run, settings=CPU)  # on the run's own data
    assert results["top1"] == pytest.approx(summary.best)
    report = elastic_cnn.evaluate(run, settings=CPU, report=tmp_path / "report", against=run)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report.found
    assert "<iframe" in report._repr_html_()
    assert report.found["against"]["p_value"] == 1
    explorer = elastic_cnn.explore(run, out=tmp_path / "explorer")
    assert (explorer.index.is_file(), explorer.photos) == (True, 4)
    changed = elastic_cnn.train(recipe, tiny / "photos", tmp_path / "other", CPU, epochs=1, network="resnext_small")
    assert changed.epochs == 1
    plain = elastic_cnn.explore(tmp_path / "other", out=tmp_path / "plain")
    assert (plain.index.is_file(), plain.photos) == (True, 4)


def test_what_cannot_be_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="unknown key 'epoch'; did you mean epochs"):
        elastic_cnn.train(tiny / "tiny.yaml", tiny / "photos", tmp_path / "run", CPU, epoch=2)
    with pytest.raises(ValueError, match="does not say where its data lies"):
        elastic_cnn.evaluate(tmp_path)
    with pytest.raises(ValueError, match="against goes with report"):
        elastic_cnn.evaluate(tmp_path, tmp_path, against=tmp_path)


def test_reports_and_specs_show_themselves_in_notebooks():
    network = elastic_cnn.elasticize(elastic_cnn.create_model("resnet10t", channels=[8, 8, 8, 8], stem_width=8))
    assert str(network.elastic_report).splitlines()[0][:20] in network.elastic_report._repr_html_()
    html = elastic_cnn.ElasticSpec(shares=(0.75, 0.25))._repr_html_()
    assert "75.0%" in html
    assert "1/2" in html
