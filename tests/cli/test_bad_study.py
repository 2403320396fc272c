"""`elastic study` on broken studies, arguments and data: one line, before the first run where it can be known."""

import shutil
from pathlib import Path

import pytest
from bad_files import encoded, photo, write_files
from bad_runs import Shell
from bad_studies import PHOTOS, STUDY, command, files_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multiprocessing:UserWarning")


@pytest.fixture
def shell(capfd) -> Shell:
    return Shell(capfd)


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
    "a teacher of an unknown": (
        "{network: resnext_small}",
        "{network: resnext_small, teacher_from: bse}",
        "mean base?",
    ),
    "weights of its own": ("{network: resnext_small}", "{network: resnext_small, weights_from: base}", "in a circle"),
    "shares of its own": ("equal_time_to: base", "shares_from: other", "other"),
    "shares in a circle": (
        "base: {network: resnext_small}\n  other: {network: resnext_small_elastic, equal_time_to: base}",
        "base: {network: resnext_small, shares_from: other}\n  other: {network: resnext_small, shares_from: base}",
        "shares_from goes in a circle: base from other from base",
    ),
    "the time of a teacher": (
        "equal_time_to: base",
        "equal_time_to: base, teacher_from: base",
        "equal_time_to leaves out what a teacher takes",
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
    (["--only", ""], "network ''", "known are base"),
    (["--only", "bas"], "network 'bas'", "did you mean base?"),
    (["--processes", "0"], "--processes 0", "at least 1"),
    (["--threads", "x"], "--threads", "invalid int value: 'x'"),
    (["--accelerator", "cpuu"], "--accelerator", "did you mean cpu"),
    (["--results", "{tmp}/file"], "{tmp}/file", "is no folder"),
    (["--results", "{tmp}/file/below"], "{tmp}/file", "is no folder"),
    (["--work", "{tmp}/file/below"], "{tmp}/file", "is no folder"),
    (["{tmp}/tiny.yaml"], "tiny.yaml", "two studies have the name tiny"),
    (["{tmp}/tinny.yaml"], "tinny.yaml", "did you mean tiny.yaml?"),
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
    shell.refuses(
        *command(tmp_path, study), named="tiny/base-seed0", says="'c', which the 2 classes to choose from lack"
    )
    shutil.rmtree(data / "val" / "c")
    assert not list((tmp_path / "results").glob("*/*"))
    assert shell.run(*command(tmp_path, study)) == 0


def test_an_unknown_metric_ends_the_study_at_the_first_run(tmp_path, shell):
    text = STUDY.replace(", equal_time_to: base", "").replace("metric: top1_error", "metric: top1_eror")
    (tmp_path / "tiny.yaml").write_text(text)
    shell.refuses(*command(tmp_path, tmp_path / "tiny.yaml"), named="'top1_eror'", says="did you mean top1_error")
    assert "other-seed0" not in shell.out
    (tmp_path / "tiny.yaml").write_text(text.replace("top1_eror", "top1_error"))
    assert shell.run(*command(tmp_path, tmp_path / "tiny.yaml"), "--only", "base") == 0
    assert "has come to its end already" in shell.out  # what was trained is not lost
