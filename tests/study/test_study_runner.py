"""Running studies: only what is missing, once, by one process; records and what is measured. Real but tiny runs."""

import fcntl
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from elastic_cnn.cli import main
from elastic_cnn.files import write_json
from elastic_cnn.study import runner, timing
from elastic_cnn.study.grid import load_study
from elastic_cnn.study.job import StoreShelf
from elastic_cnn.study.results import COLUMNS, read_records, read_table, record_path
from elastic_cnn.study.runner import Storage, is_done, run_missing, source_runs
from elastic_cnn.tasks.console import Console
from elastic_cnn.zoo import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*multiprocessing:UserWarning")

TEXT = """
title: tiny
data: {kind: digits, train: 32, test: 24, sizes: [8, 16]}
recipe:
  recipe: digits_demo
  views: 32
  overrides:
    - schedule.warmup_epochs=0.1
    - batch_size=16
    - image_size=32
    - log_every=1
    - network_kwargs.channels=[8, 8, 16, 16]
    - network_kwargs.cardinality=2
    - network_kwargs.stem_width=8
seeds: [0]
networks:
  base: {network: resnext_small}
  converted: {network: resnext_small, overrides: [elastic=true, convert.photos=8], weights_from: base}
  taught:
    network: resnext_small
    overrides: [elastic=true, convert.photos=8, distill.labels=0.5]
    weights_from: base
    teacher_from: base
  quick: {network: resnext_small_elastic, equal_time_to: base}
  learned: {network: resnext_small_selastic, shares_from: quick}
metric: top1_error
lower_is_better: true
stress: [24]
comparisons:
  - {network: quick, against: base}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study run by the command; its folder."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "tiny.yaml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "ROUNDS", 1)
        assert main(["study", str(folder / "tiny.yaml"), *folders(folder)]) == 0
    return folder


def folders(folder):
    work = ["--results", str(folder / "results"), "--work", str(folder / "work"), "--accelerator", "cpu"]
    return [*work, "--no-progress"]


def storage(folder, **changes):
    return Storage(folder / "results", folder / "work", accelerator="cpu", progress=False, **changes)


@pytest.fixture
def calls(monkeypatch):
    """Names of the runs that were started instead of running them."""
    started = []
    monkeypatch.setattr(runner, "execute", lambda run, *_: started.append(run.name))
    return started


def test_step_times_are_measured_once_for_all_processes(tmp_path, monkeypatch):
    """Two processes that find none (threads here: the lock is of an open file) end with the same views."""
    (tmp_path / "tiny.yaml").write_text(TEXT.replace("seeds: [0]", "seeds: [0, 1]").replace("views: 32", "views: 3200"))
    runs = [run for run in load_study(tmp_path / "tiny.yaml").runs() if run.network == "quick"]
    ratios = []

    def measure(run, results, *_):
        time.sleep(0.2)
        ratios.append(2.0 if not ratios else 4.0)
        write_json(timing.timing_path(results, run), {"ratio": ratios[-1]})
        return {"ratio": ratios[-1]}

    monkeypatch.setattr(runner, "measure_step_times", measure)
    monkeypatch.setattr(timing, "read_timing", lambda path: json.loads(path.read_text()))
    console = Console(False)
    with ThreadPoolExecutor(2) as pool:
        views = list(pool.map(lambda run: runner._views(run, storage(tmp_path), None, console), runs))
    assert views == [1600, 1600]
    assert ratios == [2.0]


def test_step_times_are_of_the_form_that_trains(tmp_path):
    """A run that cannot train in the form which its recipe demands cannot be timed either."""
    overrides = "    - fused=always\n    - channels_last=false\n    - batch_size=16\n"
    (tmp_path / "tiny.yaml").write_text(TEXT.replace("    - batch_size=16\n", overrides))
    (run,) = (run for run in load_study(tmp_path / "tiny.yaml").runs() if run.network == "quick")
    with pytest.raises(ValueError, match="fused=always, but no block can train in fused passes"):
        timing.measure_step_times(run, tmp_path, StoreShelf("."), torch.device("cpu"))


def test_records_hold_what_a_reader_needs(finished):
    records = {record.network: record for record in read_records(finished / "results")}
    assert set(records) == {"base", "converted", "taught", "quick", "learned"}
    record = records["quick"]
    assert {"top1_error", "error_large", "error_small", "top1_error_at_24"} - {"error_large"} <= set(record.values)
    assert record.values["top1_error_cluttered"] == record.values["top1_error"]
    assert 0 <= record.values["top1_error_plain"] <= 1
    assert 0 <= record.values["policy_mean_rho"] <= record.values["policy_most_rho"] <= 1
    assert record.values["untrained_policy_size_r2"] <= 1
    assert "policy_mean_rho" not in records["base"].values
    assert record.seed == 0
    assert record.config["recipe"]["network_kwargs"]["channels"] == [8, 8, 16, 16]
    assert records["base"].curve
    assert records["base"].views == 32
    assert records["converted"].config["weights_from"] == "base"
    assert records["converted"].config["recipe"]["convert"]["photos"] == 8
    assert "teacher_from" not in records["converted"].config
    assert records["taught"].config["teacher_from"] == "base"
    assert records["taught"].config["recipe"]["distill"]["labels"] == 0.5
    assert records["taught"].curve[0] != records["converted"].curve[0]  # of the same weights: the teacher's part counts
    (start,) = (finished / "work" / "tiny").glob("converted-*/start.safetensors")
    assert load_checkpoint(start)[1].info["conversion"]["photos"] == 8
    for file in (finished / "results" / "tiny").glob("*.json"):
        assert file.stat().st_size < 8000


def test_a_report_is_written_without_asking(finished):
    text = (finished / "results" / "report.md").read_text()
    assert "## tiny" in text
    assert "5 of the 5 runs" in text
    assert (finished / "results" / "images" / "studies" / "tiny.png").is_file()


def test_the_table_has_a_row_a_run_and_metric(finished):
    rows = read_table(finished / "results" / "results.parquet")
    records = read_records(finished / "results")
    assert set(rows[0]) == set(COLUMNS)
    values = {(row["network"], row["metric"]): row["value"] for row in rows}
    for record in records:
        for name, value in record.values.items():
            assert values[record.network, name] == value
    assert len(rows) == sum(len(record.rows()) for record in records)


def test_times_decide_on_the_views_of_an_equal_time(finished):
    timing = json.loads((finished / "results" / "tiny" / "quick-timing.json").read_text())
    assert timing["ratio"] > 0
    record = next(record for record in read_records(finished / "results") if record.network == "quick")
    assert record.views == max(16, round(32 / timing["ratio"] / 16) * 16)


def test_shares_that_were_learned_are_told_and_built(finished):
    record = next(record for record in read_records(finished / "results") if record.network == "learned")
    assert record.config["shares_from"] == "quick"
    network, _ = load_checkpoint(next((finished / "work" / "tiny").glob("learned-seed0-*/last.safetensors")))
    for stage in (1, 2, 3):
        share = record.values[f"share_high_stage_{stage}"]
        assert share in (0.25, 0.375, 0.5, 0.625, 0.75)
        assert network.elastic_spec[stage].shares == (share, 1 - share)


def test_a_network_cannot_learn_its_shares_from_itself(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TEXT.replace("shares_from: quick", "shares_from: learned"))
    with pytest.raises(ValueError, match="line 25: shares_from names another network"):
        load_study(tmp_path / "tiny.yaml")


def test_a_converted_network_started_from_the_base(finished):
    study = load_study(finished / "tiny.yaml")
    run = study.runs()[1]
    assert source_runs(run)["weights_from"].name == "base-seed0"
    folder = next((finished / "work" / "tiny").glob("converted-seed0-*/"))
    network, card = load_checkpoint(folder / "last.safetensors")
    assert card.elastic is not None
    assert not (folder / "last.ckpt").exists()
    assert next((finished / "work" / "tiny").glob("base-seed0-*/last.safetensors")).is_file()
    assert any("branches" in name for name, _ in network.named_modules())


def test_nothing_is_run_twice_and_what_is_missing_is(finished, calls):
    study = load_study(finished / "tiny.yaml")
    assert run_missing([study], storage(finished)) == []
    assert calls == []
    missing = record_path(finished / "results", study.runs()[0])
    text = missing.read_text()
    missing.unlink()
    try:
        assert run_missing([study], storage(finished, only=("base",))) == []
        assert calls == ["base-seed0"]
    finally:
        missing.write_text(text)


def test_another_configuration_is_refused_and_run_on_request(finished, calls):
    path = finished / "tiny.yaml"
    path.write_text(TEXT.replace("batch_size=16", "batch_size=8"))
    try:
        study = load_study(path)
        with pytest.raises(ValueError, match=r"another configuration .* --overwrite"):
            run_missing([study], storage(finished))
        run_missing([study], storage(finished, overwrite=True, only=("base",)))
        assert calls == ["base-seed0"]
    finally:
        path.write_text(TEXT)


def test_an_equal_run_of_another_study_is_taken_over(finished):
    other = finished / "twin.yaml"
    start = TEXT.split("  taught")[0].replace("  base: {", "  plain: {")
    start = start.replace("weights_from: base", "weights_from: plain")  # whose weights lie in the other study's folder
    other.write_text(start + "metric: top1_error\n")
    study = load_study(other)
    assert run_missing([study], storage(finished)) == []
    assert is_done(study.runs()[0], storage(finished))
    assert not (finished / "work" / "twin" / "plain-seed0").exists()
    records = {record.cell: record for record in read_records(finished / "results")}
    assert records["plain"].study == "twin"
    assert records["plain"].values == records["base"].values
    assert [record.cell for record in read_records(finished / "results") if record.study == "twin"] == [
        "converted", "plain"
    ]  # fmt: skip
    for run in study.runs():
        record_path(finished / "results", run).unlink()
    other.unlink()


def test_a_run_that_starts_from_another_kind_of_base_is_not_taken_over(finished):
    """Its configuration only names the run that it starts from, and that one may differ."""
    other = finished / "namesake.yaml"
    start = TEXT.split("  taught")[0].replace(
        "{network: resnext_small}", "{network: resnext_small, overrides: [ema=0.9]}"
    )
    other.write_text(start + "metric: top1_error\n")
    study = load_study(other)
    assert run_missing([study], storage(finished)) == []
    assert next((finished / "work" / "namesake").glob("converted-seed0-*/last.safetensors")).is_file()
    for run in study.runs():
        record_path(finished / "results", run).unlink()
    other.unlink()


def test_a_run_of_another_process_is_waited_for(tmp_path, calls, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(TEXT)
    monkeypatch.setattr(runner, "POLL_S", 0.05)
    (tmp_path / "work" / "tiny").mkdir(parents=True)
    with (tmp_path / "work" / "tiny" / "base-seed0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        study = load_study(tmp_path / "tiny.yaml")
        worker = threading.Thread(target=run_missing, args=([study], storage(tmp_path, only=("base",))), daemon=True)
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
        assert calls == []
        fcntl.flock(lock, fcntl.LOCK_UN)
        worker.join(30)
    assert calls == ["base-seed0"]


def test_initial_weights_that_nobody_makes_are_an_error(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TEXT)
    with pytest.raises(ValueError, match="converted-seed0 needs tiny/base-seed0, whose weights are not in"):
        run_missing([load_study(tmp_path / "tiny.yaml")], storage(tmp_path, only=("converted",)))


def test_a_failed_run_leaves_the_others_alone(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(TEXT.replace("seeds: [0]", "seeds: [0, 1]"))
    started = []

    def execute(run, *_):
        started.append(run.name)
        if run.seed == 0:
            raise ValueError("the loss became nan")

    monkeypatch.setattr(runner, "execute", execute)
    failed = run_missing([load_study(tmp_path / "tiny.yaml")], storage(tmp_path, only=("base",)))
    assert started == ["base-seed0", "base-seed1"]
    assert failed == ["tiny/base-seed0: the loss became nan"]


def test_processor_seconds_of_a_part_of_a_run_are_not_recorded(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(TEXT)
    run, told = load_study(tmp_path / "tiny.yaml").runs()[0], []
    monkeypatch.setattr(runner, "train", lambda *_: SimpleNamespace(seconds=1.0))
    monkeypatch.setattr(runner.results, "write_record", lambda *_: None)
    monkeypatch.setattr(
        runner, "_record", lambda *given: told.append(given[-1]) or SimpleNamespace(values={"top1_error": 0.5})
    )
    for _ in range(2):
        runner.execute(run, storage(tmp_path), runner.StoreShelf("."), Console(False))
        folder = runner._folder(run, runner.results.key_of(runner.results.config_of(run, 32)), storage(tmp_path))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").write_bytes(b"a state")
    assert told[0] >= 0
    assert told[1] is None
