"""The package as others install and import it: its files, its metadata, its names, and how soon the command answers."""

import ast
import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import elastic_cnn
from elastic_cnn.kernels.doctor import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
import json, sys
from setuptools import build_meta
folder = sys.argv[1]  # setuptools writes arguments of its own there
print("\\n" + json.dumps([build_meta.build_sdist(folder), build_meta.build_wheel(folder)]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[set[str], zipfile.ZipFile]:
    """(names of the sdist's files, the wheel), made of a copy of the checkout, without compiling kernels."""
    folder = tmp_path_factory.mktemp("built")
    left = shutil.ignore_patterns(
        ".git", ".venv", ".*_cache", ".hypothesis", "scratch", "runs", "build", "dist", "*.so"
    )
    shutil.copytree(ROOT, folder / "checkout", ignore=left)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=folder / "checkout", env=os.environ | {"CXX": "none"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sdist, wheel = json.loads(done.stdout.splitlines()[-1])
    with tarfile.open(folder / sdist) as archive:
        members = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    return members, zipfile.ZipFile(folder / wheel)


def tracked() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: which files belong to the project is not known")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


def test_the_sdist_is_the_repository(built):
    assert tracked() - built[0] == set()


def test_the_wheel_holds_the_package_and_all_its_data(built):
    names = {name for name in built[1].namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"elastic_cnn", "_elastic_cnn_command.py"}
    documents = (".md", ".mjs")  # for those who work on the sources
    assert {name[4:] for name in tracked() if name.startswith("src/") and not name.endswith(documents)} - names == set()


def test_the_metadata_is_whole(built):
    wheel = built[1]
    metadata = email.message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith("/METADATA"))))
    assert metadata["Version"] == elastic_cnn.__version__
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == elastic_cnn.__version__
    assert metadata["Author"]
    assert metadata.get_all("Classifier")
    assert metadata.get_all("Project-URL")
    assert re.findall(r"\]\((?!https?:|#)[^)]*\)", metadata.get_payload()) == []  # nothing relative
    assert "# Elastic" in metadata.get_payload()


def requirements() -> dict[str, Requirement]:
    """The floors of pyproject.toml by package."""
    text = (ROOT / "pyproject.toml").read_text().split("[project.urls]")[0]
    found = map(Requirement, re.findall(r'"([A-Za-z][\w.-]*>=[\d.]+)"', text))
    return {requirement.name.lower().replace("_", "-"): requirement for requirement in found}


def test_pinned_versions_meet_the_floors_and_every_floor_is_pinned():
    pins = dict(line.lower().replace("_", "-").split("==") for line in (ROOT / "constraints.txt").read_text().split())
    floors = requirements()
    floors.pop("setuptools")
    assert set(floors) - set(pins) == set()
    assert [name for name, floor in floors.items() if not floor.specifier.contains(pins[name])] == []


def test_the_doctor_knows_the_extras():
    """And each of its modules belongs to a distribution that pyproject.toml asks for."""
    text = (ROOT / "pyproject.toml").read_text()
    declared = dict(re.findall(r"^(\w+) = \[(\"[a-z].*)\]$", text, re.MULTILINE))
    for extra, modules in EXTRAS.items():
        packages = set(re.findall(r'"([\w-]+)[>"]', declared[extra])) - {"torch"}  # of a higher floor for some
        assert {{"sklearn": "scikit-learn"}.get(m, m).replace("_", "-") for m in modules} == packages
        assert f"`{extra}`" in (ROOT / "README.md").read_text()


def test_public_names_load_and_are_the_same_for_type_checkers():
    typed: dict[str, str] = {}
    for node in ast.walk(ast.parse(Path(elastic_cnn.__file__).read_text())):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typed = {alias.name: line.module for line in node.body for alias in line.names}
    homes = {name: home for home, names in elastic_cnn._HOMES.items() for name in names}
    assert homes == typed
    assert sorted(homes) == sorted(elastic_cnn.__all__, key=str)
    assert set(elastic_cnn.__all__) <= set(dir(elastic_cnn))
    for name in elastic_cnn.__all__:
        assert getattr(elastic_cnn, name).__name__ == name
    with pytest.raises(AttributeError, match="elastizise"):
        _ = elastic_cnn.elastizise


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["export", "--help"], []])
def test_the_command_says_what_it_is_without_loading_torch(arguments):
    code = (
        "import sys; from _elastic_cnn_command import main; sys.argv[1:] = %r; code = main(); "
        "assert 'torch' not in sys.modules; assert 'timm' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code % arguments], capture_output=True, text=True)
    assert done.returncode == (0 if arguments else 2), done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_package_enters_its_networks_in_timms_registry():
    code = "import elastic_cnn, timm; assert timm.is_model('resnext50_elastic')"
    subprocess.run([sys.executable, "-c", code], check=True)
