"""The table's schema, its checks and its merging."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_cnn.cli import main
from elastic_cnn.policy.scores import BlockInfo
from elastic_cnn.policy.table import PolicyInfo, merge_parts, read_info, read_policy, schema_of, write_part

BLOCKS = (BlockInfo("layer1.0", (1, 2), 1, 56, 48), BlockInfo("layer2.1", (1, 2, 4), 2, 28, 24))


def make_info(**changes):
    fields = {"task": "classification", "classes": ("cat", "dög <b>"), "blocks": BLOCKS, "input": {"size": [224, 192]}}
    return PolicyInfo(**{**fields, **changes})


def make_row(number, **changes):
    row = {"id": number, "path": f"cat/{number}.jpg", "label": "cat", "prediction": "dög <b>", "confidence": 0.75}
    row |= {"correct": False, "object_sizes": [3.0, 4.5], "scores": [number + 0.5, -1.25]}
    return {**row, **changes}


def write(path, rows=None, **changes):
    write_part(path, rows if rows is not None else [make_row(0), make_row(1)], make_info(**changes))
    return path


def test_what_is_written_is_read(tmp_path):
    rows = [make_row(3), make_row(9, label=None, correct=None, object_sizes=None)]
    table = read_policy(write(tmp_path / "policy.parquet", rows))
    assert table.info == make_info()
    assert len(table) == 2
    assert table.column("id") == [3, 9]
    assert table.column("label") == ["cat", None]
    assert table.column("correct") == [False, None]
    assert table.column("object_sizes") == [[3.0, 4.5], None]
    np.testing.assert_array_equal(table.scores, np.array([[3.5, -1.25], [9.5, -1.25]], np.float32))
    assert not table.has_base
    assert read_policy(tmp_path).rows.equals(table.rows)  # the folder stands for the file in it
    with pytest.raises(ValueError, match="--against"):
        table.gained()


def test_the_schema_is_the_documented_one(tmp_path):
    path = write(tmp_path / "p.parquet")
    schema = pq.read_schema(path)
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "id": "int64",
        "path": "string",
        "label": "string",
        "prediction": "string",
        "confidence": "float",
        "correct": "bool",
        "object_sizes": "list<element: float>",
        "score:layer1.0": "float",
        "score:layer2.1": "float",
    }
    described = json.loads(schema.metadata[b"elastic_cnn"])
    assert described["version"] == 1
    assert described["classes"] == ["cat", "dög <b>"]
    first = {"name": "layer1.0", "scales": [1, 2], "stage": 1, "height": 56, "width": 48}
    assert described["blocks"][0] == first


def test_multilabel_rows_hold_lists(tmp_path):
    row = make_row(0, label=["cat"], prediction=[], base_prediction=["cat"], base_confidence=0.5, base_correct=True)
    rows = [row, {**row, "id": 1, "label": [], "correct": True, "base_correct": False}]
    table = read_policy(write(tmp_path / "p.parquet", rows, task="multilabel", against="base.safetensors"))
    assert table.column("label") == [["cat"], []]
    assert table.labels() == ["cat", None]
    assert table.gained().tolist() == [False, True]


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_merging_keeps_every_row_once_in_order(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("parts")
    start, parts = 0, []
    for size in sizes:
        parts.append(
            write(folder / f"part-{start:03d}-{len(parts)}.parquet", [make_row(start + i) for i in range(size)])
        )
        start += size
    assert merge_parts(parts, folder / "policy.parquet", make_info()) == sum(sizes)
    table = read_policy(folder)
    assert table.column("id") == list(range(sum(sizes)))
    assert table.scores.shape == (sum(sizes), 2)
    assert table.info == make_info()


def test_merging_refuses_repeated_images_and_other_collections(tmp_path):
    a, b = write(tmp_path / "a.parquet"), write(tmp_path / "b.parquet", [make_row(1), make_row(2)])
    with pytest.raises(ValueError, match=r"b\.parquet repeats images"):
        merge_parts([a, b], tmp_path / "policy.parquet", make_info())
    c = write(tmp_path / "c.parquet", [make_row(5, scores=[1.0])], blocks=BLOCKS[:1])
    with pytest.raises(ValueError, match=r"c\.parquet is of another collection"):
        merge_parts([a, c], tmp_path / "policy.parquet", make_info())
    assert not (tmp_path / "policy.parquet").exists()
    assert not list(tmp_path.glob(".*"))  # no temporary file stays


def replaced(path, name, column):
    """Write the table at `path` again with another column of that name (None: without it)."""
    table = pq.read_table(path)
    index = table.column_names.index(name)
    table = table.remove_column(index) if column is None else table.set_column(index, name, column)
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("path", None, "column 'path' is missing"),
        ("score:layer2.1", None, "column 'score:layer2.1' is missing"),
        ("confidence", pa.array(["high", "low"]), "column 'confidence' is string, should be float"),
        ("id", pa.array([4, 4]), "ids are missing or repeated"),
        ("id", pa.array([4, None]), "ids are missing or repeated"),
        ("path", pa.array(["a", None]), "paths are missing"),
        ("score:layer1.0", pa.array([1, np.nan], pa.float32()), "scores of 1 rows are missing or not finite.*row 1"),
        ("score:layer1.0", pa.array([None, 1], pa.float32()), "scores of 1 rows are missing or not finite.*row 0"),
    ],
)
def test_broken_tables_are_refused_by_name(tmp_path, name, column, message):
    path = write(tmp_path / "policy.parquet")
    replaced(path, name, column)
    with pytest.raises(ValueError, match=rf"policy\.parquet: {message}"):
        read_policy(path)


def test_files_of_other_kinds_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"no policy table at .*elastic policy"):
        read_policy(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.parquet is not a readable Parquet file"):
        read_policy(tmp_path / "text.parquet")
    whole = write(tmp_path / "cut.parquet")
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.parquet is not a readable Parquet file"):
        read_policy(whole)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(ValueError, match=r"foreign\.parquet: a Parquet file, but not a policy table"):
        read_policy(tmp_path / "foreign.parquet")
    (tmp_path / "unfinished" / "parts").mkdir(parents=True)
    with pytest.raises(ValueError, match="unfinished collection"):
        read_policy(tmp_path / "unfinished")


def test_a_column_twice_and_no_rows_are_refused(tmp_path, capsys):
    path = write(tmp_path / "policy.parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column("id", table.column("id")), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet: there are several columns 'id': keep one of them"):
        read_policy(tmp_path / "twice.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    assert main(["figures", str(tmp_path / "none.parquet")]) == 2
    assert "none.parquet has no rows: collect it anew" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, not 1"),
        ({"blocks": [{"name": "a"}]}, "description is not one of a policy table"),
        ({"blocks": []}, "at least one elastic block"),
        ({"task": "detection"}, "not 'detection'"),
        ({"task": "segmentation"}, "'label' is string, should be list"),
        ({"classes": 3}, "description is not one"),
    ],
)
def test_broken_descriptions_are_refused(tmp_path, change, message):
    path = write(tmp_path / "policy.parquet")
    table = pq.read_table(path)
    described = {**json.loads(table.schema.metadata[b"elastic_cnn"]), **change}
    pq.write_table(table.replace_schema_metadata({b"elastic_cnn": json.dumps(described)}), path)
    with pytest.raises(ValueError, match=message):
        read_policy(path)


def test_a_description_of_the_contract_alone_is_enough(tmp_path):
    """Tables of other writers: base columns without `against`, unknown keys, extra columns."""
    path = write(
        tmp_path / "policy.parquet",
        [make_row(0, base_prediction="cat", base_confidence=0.1, base_correct=True)],
        against="x",
    )
    table = pq.read_table(path).append_column("extra", pa.array(["?"]))
    described = json.loads(table.schema.metadata[b"elastic_cnn"])
    for key in ("against", "size_unit", "source"):
        del described[key]
    described["later"] = 1
    pq.write_table(table.replace_schema_metadata({b"elastic_cnn": json.dumps(described)}), path)
    read = read_policy(path)
    assert read.has_base
    assert read.info.against is None
    assert "extra" not in read.rows.column_names
    assert read_info(path).blocks == BLOCKS


def test_repeated_block_names_are_refused():
    with pytest.raises(ValueError, match="must differ"):
        schema_of(make_info(blocks=(BLOCKS[0], BLOCKS[0])))
