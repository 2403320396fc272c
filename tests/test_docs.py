"""What the documentation shows works: Python examples run, commands are accepted, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from elastic_cnn.cli import COMMANDS, make_parser
from elastic_cnn.serve.openapi import describe
from elastic_cnn.zoo import NetworkCard, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "tests" / "README.md", *SITE]
MAKE_TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks(kind: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, text in enumerate(
            re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append((f"{page.relative_to(ROOT)}-{number}", text))
    return found


def commands() -> list[tuple[str, str]]:
    """Every command line of the sh blocks, continued lines joined, comments cut."""
    lines = []
    for name, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # environment variables before a command
                words = words[1:]
            if words:
                lines.append((name, shlex.join(words)))
    return lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(page, tmp_path, monkeypatch):
    """A page's examples one after the other, in a folder that holds the run which they speak of."""
    kwargs = {"num_classes": 3, "channels": [16, 16, 32, 32], "layers": [2, 2, 2, 1]}
    card = NetworkCard("resnext_small_elastic", kwargs, classes=("ant", "bee", "cat"))
    save_checkpoint(tmp_path / "runs" / "birds" / "best.safetensors", card.build(), card)
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for name, code in blocks("python"):
        if name.startswith(f"{page.relative_to(ROOT)}-"):
            exec(compile(code, name, "exec"), names)


def of_the_command() -> list[tuple[str, str]]:
    """What stands after `elastic`, also behind a pipe or `torchrun ... -m elastic_cnn`."""
    found = re.compile(r"(?:^|(?<=\| )|(?<=-m ))elastic(?:_cnn)? ([^|]*)")
    return [(name, words) for name, line in commands() for words in found.findall(line.replace("'|'", "|"))]


@pytest.mark.parametrize(("name", "line"), of_the_command())
def test_commands_are_accepted(name, line):
    words = shlex.split(line)
    assert words[0] in COMMANDS
    args = make_parser(words).parse_args(words)
    assert callable(args.run)


def spans(start: str) -> list[tuple[Path, list[str]]]:
    """(page, words behind `start`) of every such text in a sentence. What the changelog names may be gone by now."""
    found = []
    for page in [page for page in PAGES if page.name != "CHANGELOG.md"]:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        found += [(page, words.split()) for words in re.findall(rf"`{start} ([^`]+)`", text)]
    return found


def test_commands_in_sentences_and_their_flags_are_known():
    for page, (command, *words) in spans("elastic"):
        if command.startswith("-") or command == "COMMAND":
            continue
        assert command in COMMANDS, page
        flags = [word.partition("=")[0] for word in words if re.match("--?[a-z]", word)]
        chosen = make_parser([command])._subparsers._group_actions[0].choices[command]
        assert [flag for flag in flags if flag not in chosen._option_string_actions] == [], (page, command)
    assert {words[0] for _, words in spans("make")} <= set(MAKE_TARGETS)


def test_programs_that_are_run_by_python_know_their_flags():
    lines = [(page, words) for page, words in spans("python") if words[0] != "-c"]
    lines += [(name, shlex.split(line)[1:]) for name, line in commands() if line.startswith("python ")]
    assert len(lines) >= 10
    for page, words in lines:
        name = words[1].replace(".", "/").replace("elastic_cnn", "src/elastic_cnn") if words[0] == "-m" else words[0]
        found = [path for path in (ROOT / name, ROOT / f"{name}.py") if path.exists()]
        assert found, (page, words)
        files = sorted(found[0].glob("*.py")) if found[0].is_dir() else found
        text = "".join(file.read_text() for file in files)
        assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == [], page


def test_no_command_stands_where_it_is_not_tried():
    """Commands stand in blocks of their own; what starts them is one that the tests here know."""
    known = {"elastic", "make", "pip", "python", "torchrun", "find", "curl", "apt-get", "pre-commit"}
    assert {line.split()[0] for _, line in commands()} <= known
    indented = re.compile(rf"^    (?:{'|'.join(known)}) .*", re.MULTILINE)
    for page in PAGES:
        text = page.read_text()
        assert indented.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)) == [], page
        assert set(re.findall(r"^```(\w+)", text, re.MULTILINE)) <= {"sh", "python", "py", "text", "json", "yaml"}, page
    for name, code in blocks("py"):  # needs what a test has not: a network, a token
        compile(code, name, "exec")


def test_addresses_that_curl_asks_are_served():
    asked = [line for _, line in commands() if line.startswith("curl ")]
    paths = {path for line in asked for path in re.findall(r"http://[\d.]+:\d+(/\w+)", line)}
    assert paths
    assert paths <= set(describe(1, 1, 1)["paths"])


@pytest.mark.parametrize(("name", "line"), [entry for entry in commands() if entry[1].startswith("make ")])
def test_make_targets_exist(name, line):
    assert set(shlex.split(line)[1:]) <= set(MAKE_TARGETS)


def test_packages_that_are_installed_exist():
    declared = (ROOT / "pyproject.toml").read_text()
    lines = [line for _, line in commands() if line.startswith("pip install ")]
    assert lines
    for line in lines:
        for word in shlex.split(line)[2:]:
            assert re.fullmatch(r"--no-build-isolation|(\.|elastic-cnn)(\[[\w,]+\])?", word) or word in declared, line
            for extra in re.findall(r"\w+", word.partition("[")[2]):
                assert re.search(rf"^{extra} = \[", declared, re.MULTILINE), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_every_page_stands_in_the_sites_navigation():
    listed = set(re.findall(r"- (?:[\w ]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    made = {name for name in listed if name == "index.md" or name.startswith("reference/")}
    assert listed - made == {page.relative_to(ROOT / "docs").as_posix() for page in SITE}


def test_the_map_of_the_tests_names_what_there_is():
    """And every folder of tests stands in it."""
    named = re.findall(r"`([\w/*]+(?:\.py|/))`", (ROOT / "tests" / "README.md").read_text())
    assert [name for name in named if not list((ROOT / "tests").glob(name.rstrip("/")))] == []
    folders = {file.parent.relative_to(ROOT / "tests").parts[0] for file in (ROOT / "tests").glob("*/**/*.py")}
    assert folders - {name.split("/")[0] for name in named} == set()


def test_the_workflows_and_hooks_can_be_read():
    for file in [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(file.read_text()), file
    used = re.findall(r"run: ((?:\.ci/|python -m pytest)\S*)", (ROOT / ".github/workflows/ci.yml").read_text())
    assert {name for name in used if name.startswith(".ci/")} == {".ci/run", ".ci/floor"}
    assert all((ROOT / name).exists() for name in used if name.startswith(".ci/"))


def test_every_command_is_shown_somewhere():
    shown = {shlex.split(line)[0] for _, line in of_the_command()}
    assert set(COMMANDS) - shown == set()
