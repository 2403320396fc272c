"""Conditions that cross: legend, histogram, confusion matrix, tags, history; and what is left of a plain network. The
oracle is numpy on the policy table."""

import csv
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from explorer_tables import BLOCKS, CLASSES, HOSTILE, Explorer, build, wait_until

NOW = "ElasticExplorer.app.state.now"
AXE = Path(sys.prefix) / "eslint" / "node_modules" / "axe-core" / "axe.min.js"


def shown(page) -> list[int]:
    return page.evaluate("Array.from(ElasticExplorer.app.rows)")


def column(explorer: Explorer, name: str) -> np.ndarray:
    return np.array(explorer.table.column(name))


def charts(page) -> None:
    """Wait for the frame in which histogram and matrix are drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_losses_stand_beside_gains(page, explorer):
    right, base = column(explorer, "correct"), column(explorer, "base_correct")
    counts = {
        "both right": right & base,
        "only Elastic right": right & ~base,
        "only the base right": ~right & base,
        "both wrong": ~right & ~base,
    }
    page.select_option("#map-color", "outcome")
    legend = page.locator("#map-legend .swatch")
    assert legend.all_inner_texts() == [f"{name} {rows.sum()}" for name, rows in counts.items()]
    for number, rows in enumerate(counts.values()):
        legend.nth(number).click()
        assert shown(page) == np.flatnonzero(rows).tolist()
        assert legend.nth(number).get_attribute("aria-pressed") == "true"
        legend.nth(number).click()
    assert len(shown(page)) == 60
    colors = page.evaluate("Array.from(ElasticExplorer.app.map.colors)")
    assert len({colors[row] for row in np.flatnonzero(counts["only the base right"])}) == 1
    assert len(set(colors)) == 4
    lost = int(np.flatnonzero(counts["only the base right"])[0])
    assert "wrong, base right" in page.inner_text(f"#card-{lost} .said")
    page.click(f"#card-{lost}")
    assert "Elastic wrong, base right" in page.inner_text("#detail .facts")


def test_accuracy_is_of_what_is_shown(page, explorer):
    right, base, label = (column(explorer, name) for name in ("correct", "base_correct", "label"))
    page.select_option("#filter-class", "ant")
    rows = label == "ant"
    gain, loss = (right & ~base & rows).sum(), (~right & base & rows).sum()
    assert page.inner_text("#accuracy") == (
        f"{100 * right[rows].mean():.1f}% right, base {100 * base[rows].mean():.1f}% "
        f"(only Elastic right {gain}, only base right {loss})"
    )


def test_classes_of_the_legend_are_kept_together(page, explorer):
    label = column(explorer, "label")
    legend = page.locator("#map-legend .swatch")
    legend.filter(has_text="ant").click()
    legend.filter(has_text="bee_hive").click()
    assert shown(page) == np.flatnonzero(np.isin(label, ["ant", "bee_hive"])).tolist()
    legend.filter(has_text="ant").click()
    assert shown(page) == np.flatnonzero(label == "bee_hive").tolist()
    page.click("#reset")
    assert len(shown(page)) == 60


@pytest.mark.parametrize("key", ["confidence", "b3", "mean", "margin", "base"])
def test_the_histogram_counts_and_its_range_keeps(page, explorer, key):
    values = {
        "confidence": column(explorer, "confidence"),
        "base": column(explorer, "base_confidence"),
        "b3": explorer.table.scores[:, 3],
        "mean": explorer.table.scores.mean(axis=1),
        "margin": np.array([top[0] - top[1] for top in explorer.table.column("top_probabilities")]),
    }[key]
    page.select_option("#histogram-key", key)
    page.select_option("#filter-outcome", "right")  # the counts are of what the other conditions leave
    right = column(explorer, "correct")
    charts(page)
    asked = "(key) => Array.from(ElasticExplorer.app.histogram.counts(key, ElasticExplorer.app.matcher.without('')))"
    counts = np.array(page.evaluate(asked, key)).reshape(40, 3)
    assert counts[:, 0].sum() == right.sum()
    assert counts[:, 1:].sum() == 0
    low, high = (0, 1) if key in ("confidence", "base", "margin") else (values.min(), values.max())
    assert np.abs(np.cumsum(counts[:, 0]) - np.histogram(values[right], 40, (low, high))[0].cumsum()).max() <= 1
    page.fill("#brush-high", "25")
    page.fill("#brush-low", "10")
    edges = low + np.array([10, 25]) / 40 * (high - low)
    expected = np.flatnonzero(right & (values >= edges[0]) & (values <= edges[1]))
    assert shown(page) == expected.tolist()
    page.locator("#brushes .chip").click()
    assert shown(page) == np.flatnonzero(right).tolist()


def test_dragging_over_the_histogram_and_two_ranges_at_once(page, explorer):
    page.select_option("#histogram-key", "b0")
    charts(page)
    box = page.locator("#histogram svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 30, steps=5)
    page.mouse.up()
    scores = explorer.table.scores[:, 0]
    middle = (scores.min() + scores.max()) / 2
    assert shown(page) == np.flatnonzero(scores >= middle).tolist()
    page.select_option("#histogram-key", "b1")
    charts(page)  # the handles stand at b1's own ends from here on
    page.fill("#brush-high", "20")
    other = explorer.table.scores[:, 1]
    both = (scores >= middle) & (other <= (other.min() + other.max()) / 2)
    assert shown(page) == np.flatnonzero(both).tolist()
    assert page.locator("#brushes .chip").count() == 2


def test_the_confusion_matrix_counts_and_keeps_a_cell(page, explorer):
    label, guess = column(explorer, "label"), column(explorer, "prediction")
    rows = np.flatnonzero((label == "bee_hive") & (guess == HOSTILE))
    assert len(rows)
    mistake = page.locator(".mistakes button").filter(has_text=re.compile("^bee_hive taken for <img"))
    assert mistake.inner_text().endswith(f" {len(rows)}")
    mistake.click()
    assert shown(page) == rows.tolist()
    charts(page)
    numbers = page.locator("#confusion .cell-text").all_text_contents()  # its own condition leaves the matrix whole
    pairs = {(a, b): int(((label == a) & (guess == b)).sum()) for a in CLASSES for b in CLASSES}
    assert sorted(map(int, numbers)) == sorted(count for count in pairs.values() if count)
    page.click("#cell-clear")
    page.select_option("#filter-outcome", "gain")
    charts(page)
    assert page.locator(".mistakes button").count() == 0
    assert len(shown(page)) == (column(explorer, "correct") & ~column(explorer, "base_correct")).sum()


def test_one_slider_with_two_handles(page, explorer):
    confidence = column(explorer, "confidence")
    page.focus("#confidence-low")
    for _ in range(3):
        page.keyboard.press("PageUp")
    low = page.evaluate(f"{NOW}.low")
    assert low > 0
    assert shown(page) == np.flatnonzero(confidence >= np.float32(low / 100)).tolist()
    page.focus("#confidence-high")
    page.keyboard.press("Home")  # a handle stops at the other
    assert page.evaluate(f"{NOW}.high") == low
    boxes = [page.locator(f"#confidence-{end}").bounding_box() for end in ("low", "high")]
    assert boxes[0] == boxes[1]  # one track


def test_tags_and_files_of_a_selection(page, explorer):
    label = column(explorer, "label")
    page.focus("#grid")
    page.keyboard.press("g")
    assert page.inner_text("#card-0 .tags") == "#check"
    page.select_option("#filter-class", "bee_hive")
    bees = np.flatnonzero(label == "bee_hive")
    page.click("#open-selection")
    page.fill("#tag-name", "<b>odd</b>")
    page.click("#tag-all")
    with page.expect_download() as held:
        page.click("#export-csv")
    rows = list(csv.DictReader(io.StringIO(Path(held.value.path()).read_text("utf-8"))))
    paths = explorer.table.column("path")
    assert [row["path"] for row in rows] == [paths[row] for row in bees]
    assert {row["label"] for row in rows} == {"bee_hive"}
    assert {row["tags"] for row in rows} == {"<b>odd</b>"}
    assert [row["outcome"] == "right" for row in rows] == column(explorer, "correct")[bees].tolist()
    assert [float(row["confidence"]) for row in rows] == pytest.approx(column(explorer, "confidence")[bees], abs=1e-6)
    with page.expect_download() as held:
        page.click("#export-paths")
    assert Path(held.value.path()).read_text("utf-8").splitlines() == [paths[row] for row in bees]
    page.keyboard.press("Escape")
    page.click("#reset")
    page.select_option("#filter-tag", "check")
    assert shown(page) == [0]
    page.select_option("#filter-tag", "<b>odd</b>")
    assert shown(page) == bees.tolist()
    wait_until(page, f"location.hash === ElasticExplorer.formatHash({NOW})")
    page.reload()
    page.wait_for_selector("html[data-ready='1']")
    assert shown(page) == bees.tolist()  # the browser kept them
    page.click("#open-selection")
    page.click("#untag-all")
    assert shown(page) == []


def test_back_undoes_what_was_chosen(page):
    def settle():
        wait_until(page, f"location.hash === ElasticExplorer.formatHash({NOW})")

    page.select_option("#filter-outcome", "wrong")
    settle()
    page.select_option("#filter-class", "ant")
    settle()
    page.click("#card-0")
    settle()
    page.keyboard.press("ArrowRight")
    settle()
    page.go_back()
    wait_until(page, f"{NOW}.photo === -1")
    assert page.evaluate(f"[{NOW}.outcome, {NOW}.category]") == ["wrong", "ant"]
    page.go_back()
    wait_until(page, f"{NOW}.category === ''")
    assert page.input_value("#filter-outcome") == "wrong"
    page.go_forward()
    wait_until(page, f"{NOW}.category === 'ant'")


def test_a_shared_address_holds_the_conditions(page, watched, explorer):
    page.locator("#map-legend .swatch").filter(has_text="ant").click()
    page.evaluate("ElasticExplorer.app.state.set({brush: [{key: 'b2', low: -0.5, high: 1.25}], chart: 'b2'})")
    wait_until(page, f"location.hash === ElasticExplorer.formatHash({NOW})")
    rows = shown(page)
    again = watched.open(page.url)
    assert shown(again) == rows
    assert again.input_value("#histogram-key") == "b2"


def test_the_ribbon_is_explained_once(page, watched, explorer):
    assert "scale policy" in page.inner_text("#intro")
    page.click("#intro-close")
    assert not page.locator("#intro").is_visible()
    again = watched.open(explorer.url)
    assert not again.locator("#intro").is_visible()


def test_charts_name_their_blocks_and_axes(page, explorer):
    page.click("#card-3")
    names = page.locator("#detail .block-name").evaluate_all("list => list.map((item) => item.firstChild.data)")
    assert names == [block.name for block in BLOCKS]
    assert "score: fine" in page.locator("#detail .chart .axis").last.text_content()


def test_the_best_five_stand_in_the_detail(page, explorer):
    page.click("#card-7")
    entries = page.locator("#detail .top li")
    assert entries.count() == 4  # there are no more classes
    best = explorer.table.column("top_classes")[7]
    texts = [text.replace(" \u2713", "") for text in page.locator("#detail .top .bar-text").all_inner_texts()]
    assert texts == best
    assert page.locator("#detail .top .figure").first.inner_text() == f"{100 * column(explorer, 'confidence')[7]:.1f}%"
    assert page.locator("#detail .top .is-right").count() == 1


def test_several_labels_tell_what_was_missed(watched, tmp_path):
    other = build(tmp_path, rows=20, multilabel=True)
    page = watched.open(other.url)
    assert not page.locator("#confusion-section").is_visible()
    labels, guesses = other.table.column("label"), other.table.column("prediction")
    page.click("#card-1")
    missed = [name for name in labels[1] if name not in guesses[1]]
    assert missed
    text = page.inner_text("#detail .facts")
    assert f"missed\n{', '.join(missed)}" in text


def test_a_plain_network_has_photos_map_and_mistakes(watched, tmp_path):
    plain = build(tmp_path, plain=True, base=False)
    page = watched.open(plain.url)
    assert page.inner_text("h1") == "Predictions"
    assert "no elastic blocks" in page.inner_text("#subtitle")
    for hidden in ("#intro", "#mean-chart", "#ribbon-scale", "#legend", "#card-0 .ribbon"):
        assert not page.locator(hidden).is_visible()
    assert page.locator("#sort-key option").all_inner_texts() == [
        "order of the table", "category, by name", "prediction", "confidence",
        "margin of the best class over the second", "largest object (pixels)",
    ]  # fmt: skip
    page.click("#card-5")
    assert "Nearest in feature space" in page.inner_text("#detail")
    titles = page.locator("#detail .mini").evaluate_all("list => list.map((item) => item.title)")
    labels = dict(zip(plain.table.column("path"), plain.table.column("label"), strict=True))
    assert {labels[title] for title in titles[:10]} == {labels[plain.table.column("path")[5]]}
    page.keyboard.press("Escape")
    page.click("#open-classes")
    assert "Most typical photos" in page.inner_text("#compare")
    assert page.locator("#compare .chart").count() == 0


def test_a_phone_shows_photos_first(browser, explorer):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(explorer.url)
    page.wait_for_selector("html[data-ready='1']")
    box = page.locator("#grid").bounding_box()
    assert (box["width"], box["height"] > 500) == (390, True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.locator("#filter-class").is_visible()
    page.click("#toggle-filters")
    page.select_option("#filter-class", "ant")
    assert len(shown(page)) == 15
    page.click("#toggle-filters")
    page.click("#toggle-map")
    assert page.locator("#map").bounding_box()["height"] >= 200
    assert page.locator("#grid").bounding_box()["height"] > 150
    context.close()


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `make eslint` installs it where npm is at hand")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser, explorer, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for hash in ("#color=outcome", "#photo=3", "#classes=ant_bee%255Fhive"):
        page.goto("about:blank")
        page.goto(explorer.url + hash)
        page.wait_for_selector("html[data-ready='1']")
        charts(page)
        assert serious_faults(page) == [], hash
    context.close()


def serious_faults(page) -> list:
    """What axe-core finds that is serious or worse: name, elements, summary."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    return [
        (entry["id"], [node["html"] for node in entry["nodes"]][:3], entry["nodes"][0]["failureSummary"])
        for entry in found["violations"]
        if entry["impact"] in ("serious", "critical")
    ]
