"""`elastic study` and `elastic study report` on broken records, tables and pages: one line, nothing lost."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from bad_runs import Shell
from bad_studies import ONE, STUDY, command, files_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multiprocessing:UserWarning")


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A study that ran: tiny.yaml, results/, work/."""
    from elastic_cnn.cli import main

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(ONE)
    assert main([str(word) for word in command(folder, folder / "tiny.yaml")]) == 0
    return folder


@pytest.fixture
def done(finished, tmp_path) -> Path:
    """A copy of it to break."""
    return shutil.copytree(finished, tmp_path / "done")


def report(folder: Path, *words: object) -> list[object]:
    return ["study", "report", "--results", folder / "results", "-o", folder / "page.md", *words]


RECORDS = {
    "empty": (None, "is not the record of a run"),
    "text": ("<!doctype html>", "is not the record of a run"),
    "bytes": (b"\xff\xfe", "is not the record of a run"),
    "truncated": (120, "is not the record of a run"),
    "a list": ("[]", "it holds a list"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nothing in it": ("{}", "missing key 'study'"),
    "an unknown key": ({"more": 1}, "unknown key 'more'"),
    "values in a list": ({"values": [1]}, "values must be a mapping"),
    "no values": ({"values": {}}, "it holds no values"),
    "a value that is text": ({"values": {"top1_error": "x"}}, "values.top1_error must be a number, not 'x'"),
    "a value that is nothing": ({"values": {"top1_error": None}}, "values.top1_error must be a number, not None"),
    "a seed that is text": ({"seed": "0"}, "seed must be a whole number, not '0'"),
    "parameters that are text": ({"parameters": "many"}, "parameters must be a whole number, not 'many'"),
    "no views": ({"views": None}, "views must be a whole number, not None"),
    "no hardware": ({"hardware": None}, "hardware must be text, not None"),
    "a curve of numbers": ({"curve": [3]}, "curve must be a list of 2 values, not 3"),
    "another study's": ({"study": "../../x"}, "it is of ../../x/base-seed0"),
    "another seed's": ({"seed": 7}, "it is of tiny/base-seed7"),
}


def write_record(name: str, path: Path) -> None:
    content, good = RECORDS[name][0], path.read_bytes()
    if isinstance(content, dict):
        content = json.dumps({**json.loads(good), **content})
    if isinstance(content, int):
        content = good[:content]
    path.write_bytes(content.encode() if isinstance(content, str) else content or b"")


@pytest.mark.parametrize("name", RECORDS)
def test_records(name, done, shell):
    record = done / "results" / "tiny" / "base-seed0.json"
    write_record(name, record)
    before = files_of(done)
    for words in (command(done, done / "tiny.yaml"), command(done, done / "tiny.yaml", "--list"), report(done)):
        shell.refuses(*words, named=str(record), says=RECORDS[name][1])
    assert files_of(done) == before


def test_records_that_name_a_key_twice_or_are_a_folder(done, shell):
    record = done / "results" / "tiny" / "base-seed0.json"
    text = record.read_text()
    record.write_text(text.replace('"seed": 0', '"seed": 0, "seed": 1'))
    shell.refuses(*report(done), named=str(record), says="the key 'seed' stands twice")
    record.unlink()
    record.mkdir()
    for words in (command(done, done / "tiny.yaml"), report(done)):
        shell.refuses(*words, named=str(record), says="is not the record of a run")


def test_a_foreign_record_is_told_before_the_first_run(done, shell):
    (done / "results" / "other").mkdir()
    foreign = done / "results" / "other" / "net-seed3.json"
    foreign.write_text('{"loss": 1}')
    (done / "tiny.yaml").write_text(ONE.replace("seeds: [0]", "seeds: [0, 1]"))
    before = files_of(done)
    for words in (command(done, done / "tiny.yaml"), report(done)):
        shell.refuses(*words, named=str(foreign), says="unknown key 'loss'")
    assert files_of(done) == before


def test_another_configuration_is_not_overwritten(done, shell):
    before = files_of(done / "results")
    (done / "tiny.yaml").write_text(ONE.replace("train: 32", "train: 40"))
    shell.refuses(*command(done, done / "tiny.yaml"), named="base-seed0.json", says="--overwrite runs it again")
    assert files_of(done / "results") == before


def foreign_tables() -> dict[str, bytes]:
    table = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2]}), table)
    whole = table.getvalue().to_pybytes()
    return {"empty": b"", "text": b"id,path\n1,a\n", "truncated": whole[:-9], "from elsewhere": whole}


@pytest.mark.parametrize("name", foreign_tables())
def test_a_foreign_table_is_not_overwritten(name, done, shell):
    table = done / "results" / "results.parquet"
    table.write_bytes(foreign_tables()[name])
    (done / "tiny.yaml").write_text(ONE.replace("seeds: [0]", "seeds: [0, 1]"))
    before = files_of(done)
    for words in (command(done, done / "tiny.yaml"), report(done)):
        shell.refuses(*words, named=str(table), says="move it away")
    assert files_of(done) == before
    table.unlink()
    assert shell.run(*report(done)) == 0


TIMINGS = ["", "[]", "{", '{"ratio": 0, "hardware": "x"}', '{"ratio": "2", "hardware": "x"}', '{"ratio": 2.0}']


@pytest.mark.parametrize("text", TIMINGS)
def test_step_times(text, done, shell):
    (done / "tiny.yaml").write_text(STUDY)
    times = done / "results" / "tiny" / "other-timing.json"
    record = json.loads((done / "results" / "tiny" / "base-seed0.json").read_text())
    other = times.with_name("other-seed0.json")
    other.write_text(json.dumps({**record, "network": "other", "cell": "other"}))
    times.write_text(text)
    for words in (command(done, done / "tiny.yaml"), report(done)):
        shell.refuses(*words, named=str(times), says="does not hold step times")


def test_reports_that_cannot_be_made(done, shell, tmp_path):
    (tmp_path / "file").write_text("mine")
    shell.refuses("study", "report", "--results", tmp_path, "-o", tmp_path / "p.md", named=str(tmp_path), says="no res")
    shell.refuses(
        "study", "report", "--results", tmp_path / "file", "-o", tmp_path / "p.md", named="file", says="no fo"
    )
    shell.refuses(*report(done), "--processes", "x", named="--processes", says="invalid int")
    shell.refuses(*report(done), "--threads", "2", named="--threads", says="makes no use of")
    shell.refuses("study", "report", done / "none.yaml", named="none.yaml", says="there is no study")
    for page, says in ((tmp_path, "is a folder"), (tmp_path / "file" / "p.md", "is no folder")):
        shell.refuses(*report(done), "-o", page, named=str(tmp_path), says=says)
    (done / "tiny.yaml").rename(done / "moved.yaml")
    shell.refuses(*report(done), named=str(done / "tiny.yaml"), says="there is no study")
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "p.md").exists()


def test_a_report_replaces_its_own_page_alone(done, shell):
    page = done / "page.md"
    page.write_text("# My notes\n")
    shell.refuses(*report(done), named=str(page), says="is no page of results")
    assert page.read_text() == "# My notes\n"
    assert shell.run(*report(done), "--overwrite") == 0
    assert shell.run(*report(done)) == 0
    assert "# My notes" not in page.read_text()
