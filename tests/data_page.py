"""The tables and lists of docs/data.md, and what the tests of their rows share."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
HEADS = ("what happens", "meaning")
Cases = Mapping[str, Callable[[Path], str]]  # how a row's first cell begins: what is said of such data in a new folder


def section_text(section: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]


def rows(section: str) -> list[tuple[str, str]]:
    """(case, what happens) of every table row in a section, and of every item `- CASE:` with a sentence below it."""
    text = section_text(section)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    items = re.findall(r"^- (.*(?:\n  .*)*)", text, re.MULTILINE)
    cells += [[" ".join(part.split()) for part in item.split(":\n", 1)] for item in items]
    return [(first, second) for first, second in cells if second not in HEADS]


def save(path: Path, picture: Image.Image | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture or Image.new("RGB", (6, 4), "red")).save(path, **options)
    return path


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def quoted(cell: str) -> str:
    """A pattern for the sentence in a cell, or the cell's own text."""
    sentence = cell[1:-1] if re.fullmatch(r"`[^`]+`", cell) else cell
    return re.escape(sentence).replace(re.escape("..."), ".*")


def check_row(known: Cases, case: str, happens: str) -> None:
    """That what happens is what the row says: its sentence, or the beginning of its words."""
    [make] = [make for start, make in known.items() if case.startswith(start)]
    text = make(Path("photos"))
    if happens.startswith("`"):
        assert re.search(quoted(happens), text, re.DOTALL), text
    else:
        assert text
        assert happens.startswith(text), text


def check_every_case_has_its_row(section: str, known: Cases) -> None:
    cases = [case for case, _ in rows(section)]
    assert len(cases) == len(known)
    assert all(sum(case.startswith(start) for case in cases) == 1 for start in known)
