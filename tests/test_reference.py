"""Every public name has a docstring, says what it takes, and stands in the reference that `make docs` writes."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import elastic_cnn

PACKAGE = Path(elastic_cnn.__file__).parent
NOT_LISTED = {"cli"}  # the command, which docs/ tells


def modules_with_public_names() -> dict[str, list[str]]:
    """{module within the package, "" for the package: the names of its `__all__`}, from the sources."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
            if getattr(target, "id", "") == "__all__":
                parts = file.relative_to(PACKAGE).with_suffix("").parts
                found[".".join(part for part in parts if part != "__init__")] = ast.literal_eval(node.value)
    return found


PUBLIC = modules_with_public_names()


def test_packages_say_what_is_public():
    packages = {file.parent.relative_to(PACKAGE) for file in PACKAGE.rglob("__init__.py")}
    assert {".".join(folder.parts) for folder in packages} <= set(PUBLIC)


def open_parameters(function: object, words: str) -> list[str]:
    """Those that have no type, and that `words` do not name."""
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.annotation is p.empty and not re.search(rf"\b{p.name}\b", words)]


def faults(name: str, thing: object) -> list[str]:
    """What a public class or function does not say."""
    words = thing.__doc__ or ""
    generated = dataclasses.is_dataclass(thing) and words.startswith(f"{thing.__name__}(")
    found = [] if words and not generated else [f"{name} has no docstring"]
    functions = {name: thing} if inspect.isfunction(thing) else {}
    if inspect.isclass(thing):
        own = {key: value for key, value in vars(thing).items() if inspect.isfunction(value)}
        functions = {f"{name}.{key}": value for key, value in own.items() if key == "__init__" or key[0] != "_"}
    for key, function in functions.items():
        told = words + (inspect.getdoc(function) or "")
        found += [f"{key} does not say what {p} is" for p in open_parameters(function, told) if p != "self"]
    return found


@pytest.mark.parametrize("module", [module for module, names in PUBLIC.items() if names])
def test_public_names_say_what_they_are(module):
    home = importlib.import_module(f"elastic_cnn.{module}".rstrip("."))
    things = {name: getattr(home, name) for name in PUBLIC[module]}
    written = {name: thing for name, thing in things.items() if inspect.isclass(thing) or inspect.isfunction(thing)}
    assert [fault for name, thing in written.items() for fault in faults(name, thing)] == []


def test_public_names_stand_in_the_reference():
    for package in ("griffe", "mkdocs"):
        pytest.importorskip(package, reason=f"{package} makes the reference (extra docs)")
    spec = importlib.util.spec_from_file_location("docs_site", PACKAGE.parents[1] / ".ci" / "docs_site.py")
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)
    pages = {f"reference/{name}.md": site._room(*room) for name, room in site.ROOMS.items()}
    told = set(re.findall(r"^::: (\S+)$", "\n".join([site._public(), *pages.values()]), re.MULTILINE))
    packages = [module for module in PUBLIC if (PACKAGE / module.replace(".", "/") / "__init__.py").is_file()]
    wanted = {path for module in packages if module not in NOT_LISTED for path in site.exported(module).values()}
    assert wanted - told == set()
    assert set(pages) | {"reference/index.md"} == set(
        re.findall(r"reference/\w+\.md", (PACKAGE.parents[1] / "mkdocs.yml").read_text())
    )
