"""The performance page shows what the files of measured figures hold."""

import json
from pathlib import Path

from elastic_cnn.analysis.benchmark.page import with_figures

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_up_to_date():
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert with_figures(text, DOCS / "performance" / "measured") == text
    assert text.count("<!-- figures ") == text.count("<!-- end -->") >= 1


def test_blocks_are_replaced_and_the_rest_stays(tmp_path):
    machine = {"processor": "P", "cores": 2, "vectors": ["avx2"], "versions": {"torch": "2"}, "allocator": {},
               "accelerator": None}  # fmt: skip
    row = {"network": "net", "form": "eager", "ms": {"median": 12.345, "low": 12, "high": 13}, "images_per_s": 81.0,
           "memory": None}  # fmt: skip
    cell = {"job": "inference", "batch": 1, "dtype": "float32", "threads": 1, "rows": [row], "unavailable": []}
    breakdown = [{"network": "net", "job": "inference", "batch": 1, "parts": [["sums", 2.0], ["tiny", 0.001]]}]
    results = {"machine": machine, "request": {"size": 96}, "cells": [cell], "breakdown": breakdown}
    (tmp_path / "a.json").write_text(json.dumps(results))
    text = "before\n<!-- figures a.json -->\nold\n<!-- end -->\nafter\n"
    page = with_figures(text, tmp_path)
    assert page.startswith("before\n<!-- figures a.json -->\n\nP, 2 cores (avx2); torch 2.")
    assert page.endswith("<!-- end -->\nafter\n")
    assert "old" not in page
    assert "| net | eager | 12.3 | 12.0 to 13.0 | 81.0 |" in page
    assert "| sums |  | 2.0 |" in page
    assert "tiny" not in page
    assert with_figures(page, tmp_path) == page
