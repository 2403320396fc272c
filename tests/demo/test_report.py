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

from elastic_cnn.demo import verdict
from elastic_cnn.demo.report import render, sentences, terminal_table
from elastic_cnn.demo.svg import ticks
from elastic_cnn.measure.medians import MedianInterval

VOID = {"meta", "img", "br", "source", "link", "hr", "input"}


class Checker(HTMLParser):
    """Collects ids, addresses and text; fails where tags are not closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str]] = []
        self.tips: list[str] = []
        self.text = ""

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[key] for key in ("src", "href", "srcset", "action", "poster") if key in values]
        if tag == "img":
            self.images.append(values)
        assert tag not in ("iframe", "object", "base")
        assert tag != "script" or not values  # the page's own, in the page
        self.tips += [values["data-tip"]] if "data-tip" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
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
    assert found.ids == [
        "what", "verdict", "samples", "sizes", "curves", "conversion", "policy", "map", "examples", "details", "tip"
    ]  # fmt: skip
    for text in ("Spearman", "t-SNE", "Student's", "elastic demo --seed 3", "torch 2", "2 cores", "3, 4, 5, 6"):
        assert text in found.text
    assert html.startswith("<!DOCTYPE html>")
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("which", ["html", "photo_html"])
def test_nothing_outside_of_the_file(which, request):
    html = request.getfixturevalue(which)
    found = check(html)
    assert found.addresses
    outside = [address for address in found.addresses if not address.startswith("data:")]
    assert outside == ["explorer/index.html"]  # which lies beside it
    assert not re.search(r"https?://|url\(|@import|//cdn", html)


def test_pictures_are_pictures(html):
    found = check(html)
    kinds = set()
    for address in [address for address in found.addresses if address.startswith("data:")]:
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


def with_errors(results, base, elastic):
    """The results as if these were the errors of the seeds."""

    def network(result, errors):
        runs = [replace(result.runs[0], seed=seed, error=error) for seed, error in enumerate(errors)]
        return replace(result, runs=runs)

    return replace(results, base=network(results.base, base), elastic=network(results.elastic, elastic))


@pytest.mark.parametrize(
    ("base", "elastic", "text"),
    [
        ([0.30, 0.31, 0.29, 0.30], [0.20, 0.22, 0.20, 0.20], "Elastic errs less at the same cost: 20.5% against 30.0%"),
        ([0.20, 0.22, 0.20, 0.20], [0.30, 0.31, 0.29, 0.30], "Elastic errs more at the same cost: 30.0% against 20.5%"),
        ([0.30, 0.20, 0.30, 0.20], [0.20, 0.30, 0.18, 0.28], "No clear difference: Elastic errs on 24.0%"),
        ([0.30, 0.30, 0.30], [0.10, 0.29, 0.29], "No clear difference"),  # the bootstrap alone would decide
        ([0.30], [0.20], "One seed decides nothing"),
        ([0.85, 0.86], [0.80, 0.81], "Neither network has learnt enough"),
    ],
)
def test_the_headline_follows_from_both_intervals(results, base, elastic, text):
    changed = with_errors(results, base, elastic)
    assert text in verdict.headline(changed)
    low = changed.difference.low
    assert low is None or f"{100 * low:+.1f}" in verdict.headline(changed)


def test_fewer_errors_are_claimed_of_the_sizes_whose_intervals_lie_apart(results):
    bins = results.bins
    clear = replace(bins[0], base=[0.5, 0.52, 0.51, 0.5], elastic=[0.3, 0.31, 0.3, 0.3])
    open_ = replace(bins[1], base=[0.2, 0.3, 0.2, 0.3], elastic=[0.19, 0.28, 0.21, 0.31])
    worse = replace(bins[2], base=clear.elastic, elastic=clear.base)
    assert verdict.by_size([clear, clear]) == "Elastic makes fewer errors in every size range, beyond both intervals."
    assert verdict.by_size([open_, open_]) == "In no single size range do both intervals tell the networks apart."
    said = verdict.by_size([clear, open_, worse])
    assert f"fewer errors at {clear.label} pixels, and more errors at {worse.label} pixels" in said
    assert open_.label not in said


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.9, 0.85, 0.95), "is faster"), ((1.2, 1.1, 1.3), "is slower"), ((1.0, 0.9, 1.1), "is not told apart in speed")],
)
def test_time_is_claimed_from_its_interval(results, interval, word):
    times = dict.fromkeys(("elastic", "converted"), MedianInterval(*interval))
    changed = replace(results, speed=replace(results.speed, time=times))
    assert f"Elastic {word}" in verdict.speed(changed)
    assert f"it {word}" in verdict.conversion(changed)
    assert "error 25.0% before and 27.0% after" in verdict.conversion(changed)


def test_every_sentence_is_in_the_report(results, html):
    text = check(html).text
    assert len(sentences(results)) == 4
    assert all(sentence in text for sentence in sentences(results))


def test_points_say_what_they_are(results, html):
    """Each run's last error, each mean with its interval; a curve of every run carries its seed."""
    tips = check(html).tips
    assert "ResNeXt small + Elastic, seed 4, epoch 2: 20.0%" in tips
    part = results.bins[0]
    mean = 100 * np.mean(part.base)
    assert any(tip.startswith(f"ResNeXt small, {part.label} px: {mean:.1f}% (95% interval") for tip in tips)
    for kind in ("base", "elastic"):
        for run in results.base.runs:
            assert html.count(f'<polyline class="run {kind}" data-seed="{run.seed}"') == 2


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 4) == [0, 1, 2, 3, 4]
    assert ticks(0, 56.7) == [0, 20, 40]


def test_terminal_table_has_the_figures(results):
    lines = terminal_table(results).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split()[:3] == ["network", "parameters", "multiply-adds"]
    assert "images/s" in lines[0]
    for part in results.bins:
        assert f"{part.label} px" in lines[0]
    assert f"{100 * np.mean(results.base.errors):.1f}%" in lines[2]
    assert f"{100 * np.mean(results.elastic.errors):.1f}%" in lines[3]


def test_results_as_json(results, photo_results):
    values = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert values["base"]["errors"] == results.base.errors
    assert values["difference"]["count"] == 4
    assert list(values["spearman_size_score"]) == ["layer1.0", "layer1.1", "layer1.2"]
    assert values["spearman_size_score"]["layer1.1"] < -0.5
    assert sum(part["images"] for part in values["error_by_size"]) == 120
    assert json.loads(json.dumps(photo_results.to_json()))["spearman_size_score"] is None
