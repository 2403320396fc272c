"""The first hour with another person's photos goes as docs/first_hour.md says."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest
from hour import CODES, page, run, without_figures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first_hour.md"


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="the page is of a machine that cannot read HEIC")
def test_the_first_hour_goes_as_its_page_says(tmp_path):
    """Every command is run; sentences, counts, files and next steps are the page's, figures aside."""
    said = run(tmp_path)
    assert [code for _, code, _ in said] == list(CODES)
    assert without_figures(page(said)) == without_figures(PAGE.read_text())
    for command, _, text in said:
        assert "next: elastic " in text, command
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]
    assert {row["answer"] for row in rows[:3]} <= {"daisy", "poppy", "tulip"}
    assert "tulip" in (tmp_path / "runs/flowers/report/index.html").read_text()
