"""Broken studies, records, step times and tables of studies: the result, or the one error that names the file.

HYPOTHESIS_PROFILE=deep searches for longer, at random.
"""

# ruff: noqa: PT017 (either outcome is right; an error must name the file)

import json
from dataclasses import asdict

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import JSON, broken
from test_fuzz_readers import fuzz

from elastic_cnn.study.grid import Comparison, Data, Network, Study, Training, load_study
from elastic_cnn.study.results import COLUMNS, Record, read_record, read_table, read_timing

STUDY = {
    "title": "t",
    "data": {"kind": "digits", "train": 32, "sizes": [8, 16]},
    "recipe": {"recipe": "digits_demo", "views": 32, "overrides": ["schedule.warmup_epochs=0.1", "batch_size=16"]},
    "seeds": [0, 1],
    "networks": {"a": {"network": "resnext_small"}, "b": {"network": "resnext_small_elastic", "kwargs": {"x": 1}}},
    "metric": "top1_error",
    "stress": [24],
    "comparisons": [{"network": "b", "against": "a"}],
}
RECORD = asdict(
    Record(
        "s", "a", "a", "only", "only", 0, "key", {"version": 1}, {"top1_error": 0.5}, 10, 20, 32, 2, 1.0, None,
        "A CPU", "torch 2", "abc", "elastic study", [(1, 2.0), (2, 1.0)],
    )
)  # fmt: skip
TIMING = {"ratio": 1.5, "hardware": "A CPU", "base": "a"}
KEYS = st.sampled_from([key for cls in (Study, Data, Training, Network, Comparison) for key in cls.__annotations__])


def check_study(path) -> None:
    try:
        study = load_study(path)
    except ValueError as error:
        assert path.name in str(error), error
        return
    assert all(run.make_recipe().seed == run.seed for run in study.runs()[:4])


@fuzz
@given(content=broken((yaml.safe_dump(STUDY).encode(),)))
def test_studies(content, tmp_path):
    path = tmp_path / "broken study.yaml"
    path.write_bytes(content)
    check_study(path)


@fuzz
@given(place=st.sampled_from([(), ("data",), ("recipe",), ("networks", "a")]), key=KEYS, value=JSON)
def test_studies_of_other_types(place, key, value, tmp_path):
    path = tmp_path / "broken study.yaml"
    values = json.loads(json.dumps(STUDY))
    part = values
    for name in place:
        part = part[name]
    part[key] = value
    path.write_text(yaml.safe_dump(values))
    check_study(path)


def check_record(path) -> None:
    try:
        record = read_record(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert all(set(row) == set(COLUMNS) for row in record.rows())


@fuzz
@given(content=broken((json.dumps(RECORD).encode(),)))
def test_records(content, tmp_path):
    path = tmp_path / "s" / "a-seed0.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    check_record(path)


@fuzz
@given(key=st.sampled_from(list(RECORD)), value=JSON)
def test_records_of_other_types(key, value, tmp_path):
    path = tmp_path / "s" / "a-seed0.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**RECORD, key: value}))
    check_record(path)


@fuzz
@given(content=broken((json.dumps(TIMING).encode(),)))
def test_step_times(content, tmp_path):
    path = tmp_path / "a-timing.json"
    path.write_bytes(content)
    try:
        assert read_timing(path)["ratio"] > 0
    except ValueError as error:
        assert str(path) in str(error)


@pytest.fixture(scope="module")
def table() -> bytes:
    buffer = pyarrow.BufferOutputStream()
    columns = {name: pyarrow.array(["a", "b"]) for name in COLUMNS}
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


@fuzz
@given(data=st.data())
def test_tables(data, table, tmp_path):
    path = tmp_path / "results.parquet"
    path.write_bytes(data.draw(broken((table,))))
    try:
        assert all(set(row) >= set(COLUMNS) for row in read_table(path))
    except ValueError as error:
        assert str(path) in str(error)
