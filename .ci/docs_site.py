"""What `make docs` adds to the pages of docs/: the README as the first page, and a page of reference a room.

mkdocs calls the functions named `on_...` (mkdocs.yml). The package is read, not imported.
"""

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "elastic_cnn"
ROOMS = {  # page: (title, modules whose public names it lists; a package lists what its `__init__` exports)
    "surgery": ("Surgery", ("surgery", "nn")),
    "zoo": ("Networks and checkpoints", ("zoo", "zoo.hub", "zoo.released")),
    "fast": ("Faster forms", ("fast", "fast.describe", "kernels.triton")),
    "training": (
        "Training and testing",
        ("tasks.training", "tasks.recipe", "tasks.settings", "tasks.spec", "evaluation", "metrics.multilabel"),
    ),
    "conversion": ("Converting trained networks", ("conversion",)),
    "policy": (
        "Scale policy",
        ("policy", "policy.predict", "policy.run", "policy.table", "policy.figures", "policy.explorer"),
    ),
    "data": ("Data", ("data.image_folder", "data.coco", "data.masks", "data.digits", "data.sampler")),
    "export": ("Export and serving", ("export", "serve")),
    "measure": (
        "Measuring",
        (*(f"measure.{path.stem}" for path in sorted(PACKAGE.glob("measure/[a-z]*.py"))), "analysis.benchmark"),
    ),
}
STABLE = (
    "The names of `elastic_cnn.__all__`, importable from `elastic_cnn`, are stable, as are the commands with their "
    "flags, the keys of recipes and studies, and the files that are written. What the other pages of the reference "
    "list is what the package's rooms give each other: it may change with a version, which the changelog tells."
)
FIELD = re.compile(r"(`?\w+`?(?:, `?\w+`?)*):(?= |$)")  # "name: what it is", as the docstrings here write arguments

OUTSIDE = re.compile(r"\[([^]]+)\]\((?:(?:\.\./)+(?!index|\w+\.md)|(?=[A-Z]+\.cff))[^)]*\)")  # a file that is no page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"index.md": readme.replace("](docs/", "]("), "reference/index.md": _public()}
    pages |= {f"reference/{name}.md": _room(title, modules) for name, (title, modules) in ROOMS.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The README is the site's first page; links to other files of the repository become their names."""
    markdown = markdown.replace("](../README.md", "](index.md")
    return OUTSIDE.sub(lambda link: f"`{link[1].strip('`')}`", markdown)


def exported(module: str) -> dict[str, str]:
    """{public name: where it is defined}: those of `__all__`, else the classes and functions of the module itself."""
    path = PACKAGE.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    homes: dict[str, str] = {}
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("elastic_cnn."):
            homes |= {alias.name: node.module.removeprefix("elastic_cnn.") for alias in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
    if names:  # of which some come from other modules
        homes = {name: homes.get(name, module) for name in names}
        found = {home: exported(home) for home in set(homes.values()) - {module}}
        return {name: found.get(home, {}).get(name, f"elastic_cnn.{home}.{name}") for name, home in homes.items()}
    own = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    return {name: f"elastic_cnn.{module}.{name}" for name in own}


class Fields(griffe.Extension):
    """Arguments in docstrings become the items of a list."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for everything that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value)


def as_list(docstring: str) -> str:
    """Markdown in which lines "name: what it is" at the left edge are a list, with the indented lines that follow."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        field = FIELD.match(line)
        if field:
            lines += ([] if inside else [""]) + [f"- **{field[1]}**:{line[field.end() :]}"]
            inside = True
        else:
            if inside and line and not line.startswith(" "):
                lines.append("")
                inside = False
            lines.append(line)
    return "\n".join(lines)


def _entries(paths: dict[str, str], level: int) -> str:
    options = f"    options:\n      heading_level: {level}\n      show_source: false\n"
    return "\n".join(f"::: {path}\n{options}" for path in paths.values())


def _public() -> str:
    return f"# The stable surface\n\n{STABLE}\n\n" + _entries(exported(""), 2)


def _room(title: str, modules: tuple[str, ...]) -> str:
    """Each thing is described once: what is public at the top stands on that page."""
    top = set(exported("").values())
    parts = [f"# {title}"]
    for module in modules:
        names = exported(module)
        parts.append(f"## elastic_cnn.{module}")
        if shown := [f"`{name}`" for name, path in names.items() if path in top]:
            parts.append(f"{', '.join(shown)}: see [the stable surface](index.md).")
        parts.append(_entries({name: path for name, path in names.items() if path not in top}, 3))
    return "\n\n".join(parts)
