"""The report: one file that needs no other, with every section, saying what the numbers say."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from elastic_cnn.demo.report import render, terminal_table, verdict
from elastic_cnn.measure.proportions import Difference, Proportion

VOID = {"meta", "img", "br", "source", "link", "hr", "input"}


class Checker(HTMLParser):
    """Collects ids, addresses and text; fails where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[key] for key in ("src", "href", "srcset", "action", "poster") if key in values]
        if tag == "img":
            self.images.append(values)
        assert tag not in ("script", "iframe", "object", "base")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def html(results):
    return render(results)


@pytest.fixture(scope="module")
def photo_html(photo_results):
    return render(photo_results)


def test_sections(html):
    found = check(html)
    assert found.ids == ["what", "verdict", "samples", "curves", "sizes", "policy", "map", "examples", "details"]
    for text in ("Spearman", "t-SNE", "binomial", "elastic demo --seed 0", "torch 2", "2 cores", "n is the number"):
        assert text in found.text
    assert html.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("which", ["html", "photo_html"])
def test_nothing_outside_of_the_file(which, request):
    html = request.getfixturevalue(which)
    found = check(html)
    assert found.addresses
    assert all(address.startswith("data:") for address in found.addresses)
    assert not re.search(r"https?://|url\(|@import|//cdn", html)


def test_pictures_are_pictures(html):
    found = check(html)
    kinds = set()
    for address in found.addresses:
        kind, content = re.fullmatch(r"data:([a-z/+]+);base64,(.+)", address).groups()
        content = base64.b64decode(content, validate=True)
        kinds.add(kind)
        if kind == "image/svg+xml":
            assert ElementTree.fromstring(content).tag.endswith("svg")
        else:
            assert Image.open(io.BytesIO(content)).size == (64, 64)
    assert kinds == {"image/svg+xml", "image/jpeg"}
    assert all(image["alt"] for image in found.images)


def test_photos_leave_the_size_charts_out(photo_html):
    found = check(photo_html)
    assert "sizes" not in found.ids
    assert "sizes of the objects in these photos are not known" in found.text
    assert "100 of the 400 photos" in found.text
    assert "Spearman" not in found.text


def test_names_are_text(photo_html):
    """Class and folder names come from the file system: none becomes markup."""
    assert "<b>cats" not in photo_html
    assert "&lt;b&gt;cats" in photo_html
    assert "holiday &lt;1&gt;" in photo_html


def test_equal_results_give_equal_reports(results, html):
    assert render(results) == html


def with_hits(results, base, elastic):
    return replace(
        results,
        base_error=Proportion.of(~base),
        elastic_error=Proportion.of(~elastic),
        difference=Difference.of(base, elastic),
    )


@pytest.mark.parametrize(
    ("base", "elastic", "text"),
    [
        (50, 80, "Elastic wins this run: 30.0 points less"),
        (80, 50, "Elastic loses this run: 30.0 points more"),
        (80, 82, "No clear difference in this run: Elastic is ahead by 2.0 points"),
        (82, 80, "No clear difference in this run: Elastic is behind by 2.0 points"),
        (80, 80, "No difference in this run"),
        (5, 20, "Neither network has learnt enough"),
    ],
)
def test_verdict_says_what_happened(results, base, elastic, text):
    images = np.arange(100)
    assert text in verdict(with_hits(results, images < base, images < elastic))


def test_verdict_is_in_the_report(results, html):
    assert verdict(results) in check(html).text


def test_terminal_table_has_the_figures(results):
    lines = terminal_table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["network", "parameters", "multiply-adds"]
    assert "images/s" in lines[0]
    for part in results.bins:
        assert f"{part.label} px" in lines[0]
    assert f"{100 * results.base_error.value:.1f}%" in lines[2]
    assert f"{100 * results.elastic_error.value:.1f}%" in lines[3]


def test_results_as_json(results, photo_results):
    values = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert values["base"]["error"]["count"] == results.base_error.count
    assert list(values["spearman_size_score"]) == ["layer1.0", "layer1.1", "layer1.2"]
    assert values["spearman_size_score"]["layer1.1"] < -0.5
    assert sum(part["base"]["total"] for part in values["error_by_size"]) == 120
    assert json.loads(json.dumps(photo_results.to_json()))["spearman_size_score"] is None
