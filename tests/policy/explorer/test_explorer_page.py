"""The explorer as a reader meets it: opened from disk in a real browser. The oracle is numpy on the policy table."""

import io

import numpy as np
import pytest
from explorer_tables import CLASSES, HOSTILE, build, color, wait_until
from PIL import Image

ROWS = "Array.from(ElasticExplorer.app.rows)"


def settle(page) -> None:
    """Wait until what was typed is searched for, and the address says so."""
    wait_until(
        page,
        """(() => {
      const { now } = ElasticExplorer.app.state;
      return document.getElementById("search").value === now.query && location.hash === ElasticExplorer.formatHash(now);
    })()""",
    )


def shown(page) -> list[int]:
    return page.evaluate(ROWS)


def columns(explorer, *names) -> list[np.ndarray]:
    return [np.array(explorer.table.column(name)) for name in names]


def test_opens_from_disk_and_shows_the_table(page, explorer):
    assert page.inner_text("#status") == "60 photos"
    assert "tiny_elastic" in page.inner_text("#subtitle")
    first = page.locator("#card-0")
    prediction, confidence = explorer.table.column("prediction")[0], explorer.table.column("confidence")[0]
    assert first.locator(".label").inner_text() == CLASSES[0]
    assert first.locator(".guess").inner_text() == prediction
    assert first.locator(".value").inner_text() == f"{100 * confidence:.0f}%"
    assert "wrong" in first.locator(".said").inner_text()


def test_the_thumbnail_is_of_its_photo(page, explorer):
    """The middle pixel of some cards' thumbnails, in the rendered page, has the colour of the row's photo."""
    page.wait_for_timeout(300)
    for row in (0, 5, 17):
        thumb = page.locator(f"#card-{row} .thumb")
        pixels = np.asarray(Image.open(io.BytesIO(thumb.screenshot())).convert("RGB"), float)
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
        assert np.abs(middle - color(row)).max() < 8  # WebP is lossy; neighbouring rows differ by 25 and more


@pytest.mark.parametrize("text", ["photo_1", "bee", "HIVE photo_13", "no such thing", "onerror"])
def test_search_by_class_path_and_prediction(page, explorer, text):
    page.fill("#search", text)
    settle(page)
    texts = [
        f"{path}\n{label}\n{guess}".lower()
        for path, label, guess in zip(*map(explorer.table.column, ("path", "label", "prediction")), strict=True)
    ]
    expected = [i for i, line in enumerate(texts) if all(word in line for word in text.lower().split())]
    assert shown(page) == expected
    assert page.locator("#empty").is_visible() == (not expected)


@pytest.mark.parametrize("descending", [False, True])
def test_sort_by_a_block(page, explorer, descending):
    page.select_option("#sort-key", "b4")
    if descending:
        page.click("#sort-direction")
    scores = explorer.table.scores[:, 4]
    assert shown(page) == np.argsort(-scores if descending else scores, kind="stable").tolist()
    best = scores.max() if descending else scores.min()
    assert page.inner_text("#card-0 .value") == f"{best:.3f}".replace("-", "\u2212")


@pytest.mark.parametrize("key", ["confidence", "base", "mean", "category", "category-mean", "prediction"])
def test_sort_keys(page, explorer, key):
    page.select_option("#sort-key", key)
    confidence, base, label, guess = columns(explorer, "confidence", "base_confidence", "label", "prediction")
    mean = explorer.table.scores.mean(axis=1)
    by_class = {name: mean[label == name].mean() for name in CLASSES}
    values = {
        "confidence": confidence,
        "base": base,
        "mean": mean,
        "category-mean": np.array([by_class[name] for name in label]),
    }
    rows = shown(page)
    assert sorted(rows) == list(range(60))
    if key in values:
        assert (np.diff(values[key][rows]) >= -1e-7).all()
    else:  # each name's rows lie together, in the order of the table
        names = (label if key == "category" else guess)[rows]
        assert (names[1:] != names[:-1]).sum() == len(set(names)) - 1
        assert all(np.diff(np.array(rows)[names == name]).min() > 0 for name in set(names))


def test_filters(page, explorer):
    correct, base, confidence, label = columns(explorer, "correct", "base_correct", "confidence", "label")
    outcomes = {"right": correct, "wrong": ~correct, "gain": correct & ~base, "loss": ~correct & base}
    for outcome, expected in outcomes.items():
        page.select_option("#filter-outcome", outcome)
        assert shown(page) == np.flatnonzero(expected).tolist()
    page.select_option("#filter-outcome", "all")
    page.select_option("#filter-class", HOSTILE)
    assert shown(page) == np.flatnonzero(label == HOSTILE).tolist()
    page.evaluate("ElasticExplorer.app.state.set({low: 40, high: 70})")
    inside = (confidence >= np.float32(0.4)) & (confidence <= np.float32(0.7)) & (label == HOSTILE)
    assert shown(page) == np.flatnonzero(inside).tolist()
    page.click("#reset")
    assert shown(page) == list(range(60))


def drag(page, points) -> None:
    box = page.locator("#map-canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_lasso_keeps_the_photos_inside(page):
    page.click("#map-lasso")
    drag(page, [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98)])
    inside = page.evaluate("""() => {
      const { map, store } = ElasticExplorer.app;
      return Array.from(store.x.keys()).filter((row) => {
        const [left, top] = map.projection.toPixels(store.x[row], store.y[row]);
        const { width, height } = map.projection;
        return left > 0.02 * width && left < 0.5 * width && top > 0.02 * height && top < 0.98 * height;
      });
    }""")
    assert 0 < len(inside) < 60
    assert shown(page) == inside
    assert page.get_attribute("#map-lasso", "aria-pressed") == "false"
    page.click("#map-clear")
    assert len(shown(page)) == 60


def test_map_pans_zooms_and_opens_photos(page):
    home = page.evaluate("ElasticExplorer.app.map.projection.view")
    page.hover("#map")
    page.mouse.wheel(0, -400)
    wait_until(page, "ElasticExplorer.app.map.projection.zoom > 1.2")
    drag(page, [(0.5, 0.5), (0.6, 0.6)])
    assert page.evaluate("ElasticExplorer.app.map.projection.view") != home
    settle(page)
    assert "view=" in page.url
    page.focus("#map")
    page.keyboard.press("w")
    assert 0 < len(shown(page)) < 60
    page.keyboard.press("Escape")
    page.click("#map-home")
    assert page.evaluate("ElasticExplorer.app.map.projection.view") == home
    place = page.evaluate("""() => {
      const { map, store } = ElasticExplorer.app;
      return map.projection.toPixels(store.x[7], store.y[7]);
    }""")
    box = page.locator("#map-canvas").bounding_box()
    page.mouse.click(box["x"] + place[0], box["y"] + place[1])
    assert page.evaluate("ElasticExplorer.app.state.now.photo") == 7


def test_detail_shows_picture_scores_and_nearest(page, explorer):
    page.click("#card-9")
    detail = page.locator("#detail")
    assert detail.is_visible()
    wait_until(page, "document.querySelector('#detail .picture img').naturalWidth === 48")
    detail.locator("summary").click()
    cells = [cell.replace("\u2212", "-") for cell in detail.locator("tbody td:nth-child(3)").all_inner_texts()]
    assert cells == [f"{score:.4f}" for score in explorer.table.scores[9]]
    assert explorer.table.column("path")[9] in detail.inner_text()

    scores = explorer.table.scores.astype(np.float64)
    distance = np.sqrt((((scores - scores[9]) / scores.std(axis=0)) ** 2).mean(axis=1))
    order = [row for row in np.argsort(distance, kind="stable") if row != 9][:16]
    titles = detail.locator(".mini").evaluate_all("list => list.map((item) => item.title)")
    assert titles == [explorer.table.column("path")[row] for row in order]
    assert f"distance {distance[order[0]]:.2f}" in detail.locator(".mini").first.inner_text()

    detail.locator(".mini").first.click()
    assert page.evaluate("ElasticExplorer.app.state.now.photo") == order[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate("ElasticExplorer.app.state.now.photo") == order[0] + 1
    page.keyboard.press("Escape")
    assert not detail.is_visible()
    settle(page)
    assert "photo=" not in page.url


def test_a_shared_address_shows_the_same_view(page, watched, explorer):
    page.fill("#search", "photo")
    page.select_option("#sort-key", "b2")
    page.click("#sort-direction")
    page.select_option("#filter-outcome", "right")
    page.select_option("#map-color", "b1")
    page.select_option("#ribbon-scale", "absolute")
    page.evaluate("ElasticExplorer.app.state.set({lasso: [0, 0, 1, 0, 1, 1, 0, 0.9], view: [0.4, 0.5, 2]})")
    settle(page)
    rows = shown(page)
    page.click("#card-1")
    settle(page)
    address, state = page.url, page.evaluate("ElasticExplorer.app.state.now")
    assert address.startswith(explorer.url + "#")

    again = watched.open(address)
    assert shown(again) == rows
    assert again.evaluate("ElasticExplorer.app.state.now") == state
    assert again.locator("#detail").is_visible()
    assert again.input_value("#search") == "photo"
    assert again.input_value("#sort-key") == "b2"


def test_keyboard_alone(page):
    page.keyboard.press("/")
    page.keyboard.type("photo")
    settle(page)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "grid"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    per_line = int(page.get_attribute("#grid", "aria-colcount"))
    assert page.get_attribute("#grid", "aria-activedescendant") == f"card-{per_line + 1}"
    page.keyboard.press("c")
    page.keyboard.press("End")
    last = len(shown(page)) - 1
    assert page.get_attribute("#grid", "aria-activedescendant") == f"card-{last}"
    page.keyboard.press("c")
    assert page.locator("#tray-compare").is_enabled()
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    assert page.evaluate("ElasticExplorer.app.state.now.descending") is True
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    assert not page.locator("#side").is_visible()


def test_compare_two_photos_and_two_classes(page, explorer):
    page.click("#card-2", modifiers=["Control"])
    page.click("#card-7", modifiers=["Control"])
    page.click("#tray-compare")
    compare = page.locator("#compare")
    compare.locator("summary").click()
    row = compare.locator("tbody tr").first.locator("td").all_inner_texts()
    a, b = explorer.table.scores[2, 0], explorer.table.scores[7, 0]
    numbers = [float(cell.replace("\u2212", "-")) for cell in row[1:4]]
    assert numbers == pytest.approx([a, b, a - b], abs=6e-5)  # four decimals are shown
    page.keyboard.press("Escape")

    page.click("#open-classes")
    page.select_option("#compare-class-0", "ant")
    page.select_option("#compare-class-1", "bee_hive")
    settle(page)
    compare.locator("summary").click()
    (label,) = columns(explorer, "label")
    means = [explorer.table.scores[label == name].mean(axis=0)[3] for name in ("ant", "bee_hive")]
    cells = compare.locator("tbody tr").nth(3).locator("td").all_inner_texts()
    assert [float(cell.replace("\u2212", "-")) for cell in cells[1:3]] == pytest.approx(means, abs=6e-5)
    assert "classes=ant_bee%255Fhive" in page.url  # a line in a class's name is not a break between two


def test_light_and_dark(page, browser, explorer):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#toggle-theme")
    assert page.evaluate(ground) != light
    page.click("#toggle-theme")
    assert page.evaluate(ground) == light
    dark = browser.new_page(color_scheme="dark")
    dark.goto(explorer.url)
    assert dark.evaluate(ground) != light
    dark.close()


def test_every_control_has_a_name(page):
    nameless = page.evaluate("""() => Array.from(document.querySelectorAll("button, input, select")).filter((control) =>
      !(control.textContent.trim() || control.getAttribute("aria-label") || control.labels?.length)
      || (control.tagName === "SELECT" && !control.labels.length && !control.getAttribute("aria-label"))
    ).map((control) => control.id)""")
    assert nameless == []


def test_only_cards_near_the_window_exist(watched, tmp_path):
    big = build(tmp_path, rows=600, picture=0, thumbnail=32)
    page = watched.open(big.url + "#sort=category")
    assert page.locator("#empty").is_hidden()
    assert page.locator(".card").count() < 250
    page.evaluate("document.getElementById('grid').scrollTop = 1e7")
    page.wait_for_selector("#card-599")
    assert page.locator(".card").count() < 250
    loaded = sum("thumbs" in url for url in watched.requests)
    assert loaded < 600 // 16 + 1  # some sprites were never needed
    page.click("#card-599")
    assert page.locator("#detail .picture .thumb").is_visible()  # without pictures, the thumbnail stands in


@pytest.mark.parametrize("kind", [{"multilabel": True}, {"labels": False, "base": False}])
def test_other_tables(watched, tmp_path, kind):
    other = build(tmp_path, rows=20, **kind)
    page = watched.open(other.url)
    assert len(shown(page)) == 20
    outcomes = page.locator("#filter-outcome option:not([hidden])").count()
    if kind.get("multilabel"):
        assert page.inner_text("#card-1 .label") == f"{CLASSES[1]}, {CLASSES[2]}"
        page.select_option("#filter-class", CLASSES[2])
        labels = other.table.column("label")
        assert shown(page) == [row for row in range(20) if CLASSES[2] in labels[row]]
        assert outcomes == 7
    else:
        assert page.inner_text("#card-1 .label") == other.table.column("prediction")[1]
        assert outcomes == 1
    page.click("#card-0")
    assert page.locator("#detail").is_visible()
