"""`elastic study` and `elastic study report` on broken studies, folders, records and tables: one line, nothing lost."""

import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from bad_files import encoded, photo, write_files
from bad_runs import Shell

pytestmark = pytest.mark.filterwarnings("ignore:.*multiprocessing:UserWarning")

STUDY = """\
title: tiny
data: {kind: digits, train: 32, test: 24, sizes: [8, 16]}
recipe:
  recipe: digits_demo
  views: 32
  overrides:
    - schedule.warmup_epochs=0.1
    - batch_size=16
    - image_size=32
    - network_kwargs.channels=[8, 8, 16, 16]
    - network_kwargs.cardinality=2
    - network_kwargs.stem_width=8
seeds: [0]
networks:
  base: {network: resnext_small}
  other: {network: resnext_small_elastic, equal_time_to: base}
metric: top1_error
lower_is_better: true
comparisons:
  - {network: other, against: base}
"""
PHOTOS = """\
title: tiny
data: {kind: photos, folder: pictures}
recipe:
  recipe: small_images
  views: 8
  overrides: [schedule.warmup_epochs=0.1, batch_size=4, image_size=32]
seeds: [0]
networks:
  base: {network: resnet10t, kwargs: {stem_width: 8, channels: [8, 8, 16, 16]}}
metric: top1_error
lower_is_better: true
"""
ONE = STUDY.replace("  other: {network: resnext_small_elastic, equal_time_to: base}\n", "").partition("comparisons")[0]


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


def command(folder: Path, *words: object) -> list[object]:
    places = ["--results", folder / "results", "--work", folder / "work", "--data", folder / "data"]
    return ["study", *words, *places, "--accelerator", "cpu", "--no-progress"]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# name -> (what stands in STUDY, what stands in its place, what the line must say)
STUDIES = {
    "an unknown key": ("seeds: [0]", "seed: [0]", "unknown key 'seed'; did you mean seeds?"),
    "a key twice": ("title: tiny", "title: tiny\ntitle: x", "the key 'title' was given already in line 1"),
    "a key twice below": ("{network: resnext_small}", "{network: a, network: b}", "networks.base.network"),
    "a key twice in a list": ("{network: other, against: base}", "{network: a, network: b}", "comparisons.0.network"),
    "the file's name": ("title: tiny", "title: tiny\nname: ../../x", "a study has the name of its file"),
    "text for a seed": ("seeds: [0]", "seeds: [a]", "seeds must be a whole number, not 'a'"),
    "a negative seed": ("seeds: [0]", "seeds: [-1]", "seeds must not be negative"),
    "a seed twice": ("seeds: [0]", "seeds: [1, 1]", "seeds must be different whole numbers"),
    "no seed": ("seeds: [0]", "seeds: []", "at least one"),
    "no metric": ("metric: top1_error\n", "", "missing key 'metric'"),
    "a network that is text": ("{network: resnext_small}", "resnext_small", "networks.base must be a mapping"),
    "a network's unknown key": ("{network: resnext_small}", "{netwrok: a}", "did you mean networks.base.network"),
    "an unknown network": ("{network: resnext_small}", "{network: resnext_smal}", "did you mean resnext_small"),
    "arguments of another type": ("{network: resnext_small}", "{network: resnext_small, kwargs: 3}", "kwargs must be"),
    "a network named like a path": ("base: {network: resnext_small}", "../x: {network: resnext_small}", "letters"),
    "an unknown recipe": ("recipe: digits_demo", "recipe: digit_demo", "did you mean digits_demo"),
    "an unknown override": ("batch_size=16", "batch_sise=16", "unknown key 'batch_sise'; did you mean batch_size"),
    "an override of another type": ("batch_size=16", "batch_size=many", "batch_size must be a whole number"),
    "an override without a value": ("batch_size=16", "batch_size", "'batch_size' is not of the form key=value"),
    "no views": ("views: 32", "views: 0", "views=0 must be at least 1"),
    "an unknown kind of data": ("kind: digits", "kind: digit", "data.kind must be one of digits"),
    "data without a folder": ("kind: digits", "kind: photos", "need a folder"),
    "sizes of nothing": ("sizes: [8, 16]", "sizes: [-8, 16]", "sizes must be 8 or more"),
    "one size": ("sizes: [8, 16]", "sizes: [8]", "sizes must be a list of 2 values"),
    "no images": ("train: 32", "train: -3", "train=-3 must be at least 1"),
    "a negative seed of data": ("train: 32", "seed: -3", "seed must not be negative"),
    "a store of nothing": ("train: 32", "store: [0, 9]", "store=[0, 9]"),
    "two kinds of data": ("title: tiny", "title: tiny\ndata_sets: {a: {kind: digits}}", "data or data_sets, not both"),
    "a comparison of an unknown": ("network: other, against", "network: othr, against", "did you mean other?"),
    "a comparison's unknown key": (
        "network: other, against",
        "network: other, aganst",
        "did you mean comparisons.0.ag",
    ),
    "a comparison that is a number": ("- {network: other, against: base}", "- 3", "comparisons.0 must be a mapping"),
    "weights of an unknown": ("{network: resnext_small}", "{network: resnext_small, weights_from: bse}", "mean base?"),
    "weights of its own": ("{network: resnext_small}", "{network: resnext_small, weights_from: base}", "in a circle"),
    "shares of its own": ("equal_time_to: base", "shares_from: other", "other"),
    "shares in a circle": (
        "base: {network: resnext_small}\n  other: {network: resnext_small_elastic, equal_time_to: base}",
        "base: {network: resnext_small, shares_from: other}\n  other: {network: resnext_small, shares_from: base}",
        "shares_from goes in a circle: base from other from base",
    ),
    "its own time": ("equal_time_to: base", "equal_time_to: other", "names the network itself"),
    "no pixels": ("title: tiny", "title: tiny\nstress: [0]", "stress must be different positive numbers"),
    "an object": ("title: tiny", "title: !!python/object/apply:os.mkdir [code_ran]", "is not valid YAML"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_studies(name, tmp_path, shell, monkeypatch):
    before, after, says = STUDIES[name]
    assert before in STUDY
    monkeypatch.chdir(tmp_path)
    Path("my study.yaml").write_text(STUDY.replace(before, after, 1))
    shell.refuses(*command(tmp_path, "my study.yaml"), named="my study.yaml", says=says)
    shell.refuses(*command(tmp_path, "my study.yaml", "--list"), named="my study.yaml", says=says)
    assert [path.name for path in tmp_path.iterdir()] == ["my study.yaml"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "missing key 'title'"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"- 1\n", "expected `key: value` lines"),
        (b"title: [1, 2", "is not valid YAML"),
        (b"[" * 3000, "nested too deeply"),
    ],
)
def test_study_files_of_another_kind(content, says, tmp_path, shell):
    (tmp_path / "s.yaml").write_bytes(content)
    shell.refuses(*command(tmp_path, tmp_path / "s.yaml"), named="s.yaml", says=says)


# words after the study -> (what the line names, what it says)
ARGUMENTS = [
    (["--only", ""], "network ''", "did you mean base"),
    (["--only", "bas"], "network 'bas'", "did you mean base?"),
    (["--processes", "0"], "--processes 0", "at least 1"),
    (["--threads", "x"], "--threads", "invalid int value: 'x'"),
    (["--accelerator", "cpuu"], "--accelerator", "did you mean cpu"),
    (["--results", "{tmp}/file"], "{tmp}/file", "is no folder"),
    (["--results", "{tmp}/file/below"], "{tmp}/file", "is no folder"),
    (["--work", "{tmp}/file/below"], "{tmp}/file", "is no folder"),
    (["{tmp}/tiny.yaml"], "tiny.yaml", "two studies have the name tiny"),
    (["{tmp}/tinny.yaml"], "tinny.yaml", "did you mean {tmp}/tiny.yaml"),
]


@pytest.mark.parametrize(("words", "named", "says"), ARGUMENTS)
def test_arguments(words, named, says, tmp_path, shell):
    (tmp_path / "tiny.yaml").write_text(STUDY)
    (tmp_path / "file").write_text("mine")
    places = command(tmp_path, tmp_path / "tiny.yaml")
    words, named, says = [w.format(tmp=tmp_path) for w in words], named.format(tmp=tmp_path), says.format(tmp=tmp_path)
    if not words[0].startswith("-"):
        places[2:2], words = words, []
    shell.refuses(*places, *words, named=named, says=says)
    assert files_of(tmp_path) == {"tiny.yaml": STUDY.encode(), "file": b"mine"}


def test_what_can_be_known_is_said_before_the_first_run(tmp_path, shell):
    """Arguments of networks, weights of a study that is not there, photos, a GPU: nothing is trained, nothing made."""
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.replace("equal_time_to: base", "kwargs: {chanels: [3]}"))
    shell.refuses(*command(tmp_path, study), named=str(study), says="networks.other: resnext_small_elastic cannot be")
    study.write_text(STUDY.replace("equal_time_to: base", "weights_from: gone/base"))
    shell.refuses(*command(tmp_path, study), named="gone.yaml", says="networks.other.weights_from: there is no study")
    study.write_text(PHOTOS)
    shell.refuses(*command(tmp_path, study), named=str(tmp_path / "data" / "pictures"), says="--data")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_gpu_that_is_not_there(tmp_path, shell, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    shell.refuses(*command(tmp_path, tmp_path / "tiny.yaml"), "--accelerator", "gpu", named="GPU", says="--accelerator")


def test_photos(tmp_path, shell):
    """A study has the images that its seed drew, or does not run: a broken one is named, and so are classes."""
    study, data = tmp_path / "tiny.yaml", tmp_path / "data" / "pictures"
    study.write_text(PHOTOS)
    for split in ("train", "val"):
        for name in ("a", "b"):
            write_files(data / split / name, [(b"%d.png" % i, encoded(photo(seed=i), "PNG")) for i in range(4)])
    for content in (b"nothing", b"", encoded(photo((200, 150)), "JPEG")[:900]):
        (data / "val" / "a" / "bad.jpg").write_bytes(content)
        shell.refuses(*command(tmp_path, study), named="val/a/bad.jpg", says="cannot be read")
    (data / "val" / "a" / "bad.jpg").unlink()
    write_files(data / "val" / "c", [(b"1.png", encoded(photo(), "PNG"))])
    shell.refuses(*command(tmp_path, study), named="tiny/base-seed0", says="'c', which the classes to choose from lack")
    shutil.rmtree(data / "val" / "c")
    assert not list((tmp_path / "results").glob("*/*"))
    assert shell.run(*command(tmp_path, study)) == 0


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


def test_an_unknown_metric_ends_the_study_at_the_first_run(tmp_path, shell):
    text = STUDY.replace(", equal_time_to: base", "").replace("metric: top1_error", "metric: top1_eror")
    (tmp_path / "tiny.yaml").write_text(text)
    shell.refuses(*command(tmp_path, tmp_path / "tiny.yaml"), named="'top1_eror'", says="did you mean top1_error")
    assert "other-seed0" not in shell.out
    (tmp_path / "tiny.yaml").write_text(text.replace("top1_eror", "top1_error"))
    assert shell.run(*command(tmp_path, tmp_path / "tiny.yaml"), "--only", "base") == 0
    assert "going on with" in shell.out  # what was trained is not lost


def report(folder: Path, *words: object) -> list[object]:
    return ["study", "report", "--results", folder / "results", "-o", folder / "page.md", *words]


RECORDS = {
    "empty": (None, "is not the record of a run"),
    "text": ("<!doctype html>", "is not the record of a run"),
    "bytes": (b"\xff\xfe", "is not the record of a run"),
    "truncated": (120, "is not the record of a run"),
    "a list": ("[]", "it holds a list"),
    "deep": ("[" * 100_000, "nested too deeply"),
    "nothing in it": ("{}", "it lacks 'study'"),
    "an unknown key": ({"more": 1}, "it has unknown keys: more"),
    "values in a list": ({"values": [1]}, "its values is of another type"),
    "no values": ({"values": {}}, "its values are not all numbers"),
    "a value that is text": ({"values": {"top1_error": "x"}}, "its values are not all numbers"),
    "a value that is nothing": ({"values": {"top1_error": None}}, "its values are not all numbers"),
    "a seed that is text": ({"seed": "0"}, "its seed is of another type"),
    "parameters that are text": ({"parameters": "many"}, "its parameters is of another type"),
    "no views": ({"views": None}, "its views is of another type"),
    "no hardware": ({"hardware": None}, "its hardware is of another type"),
    "a curve of numbers": ({"curve": [3]}, "its curve holds 3"),
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
        shell.refuses(*words, named=str(foreign), says="it lacks 'study'")
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
    shell.refuses("study", "report", done / "tiny.yaml", named="`elastic study report`", says="takes no study")
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
