"""What the documentation shows works: Python examples run, commands are accepted, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from elastic_cnn.cli import COMMANDS, make_parser
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
    card = NetworkCard("resnext_small_elastic", {"num_classes": 3}, classes=("ant", "bee", "cat"))
    save_checkpoint(tmp_path / "runs" / "birds" / "best.safetensors", card.build(), card)
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for name, code in blocks("python"):
        if name.startswith(f"{page.relative_to(ROOT)}-"):
            exec(compile(code, name, "exec"), names)


@pytest.mark.parametrize(("name", "line"), [entry for entry in commands() if entry[1].startswith("elastic ")])
def test_commands_are_accepted(name, line):
    words = shlex.split(line)[1:]
    assert words[0] in COMMANDS
    args = make_parser(words).parse_args(words)
    assert callable(args.run)


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
    shown = {shlex.split(line)[1] for _, line in commands() if line.startswith("elastic ")}
    assert set(COMMANDS) - shown == set()
