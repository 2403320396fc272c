"""The report in a real browser: pointing at a run says its value and finds its seed in all charts."""

import pytest

from elastic_cnn.demo.report import render


@pytest.fixture(scope="module")
def page(browser, results, tmp_path_factory):
    """The report, opened from disk; at its end nothing was on the console."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(render(results), encoding="utf-8")
    page, problems = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(file.as_uri())
    yield page
    assert problems == []
    page.close()


def picked(page) -> set[str]:
    return set(page.eval_on_selector_all(".picked", "marks => marks.map(mark => mark.dataset.seed)"))


def test_pointing_at_a_run_says_its_value_and_finds_its_seed(page, results):
    dot = page.locator('#curves circle.elastic[data-seed="5"]').first
    dot.scroll_into_view_if_needed()
    dot.hover()
    assert page.locator("#tip").is_visible()
    assert page.locator("#tip").inner_text() == dot.get_attribute("data-tip")
    assert picked(page) == {"5"}
    marked = page.locator(".picked").count()
    assert marked == page.locator('.chart [data-seed="5"]').count() > 8  # in all charts
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()
    assert picked(page) == set()


def test_a_button_keeps_a_seed(page):
    button = page.locator('.seeds button[data-pick="4"]')
    button.click()
    page.mouse.move(2, 2)
    assert picked(page) == {"4"}
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert picked(page) == set()


def test_means_are_reached_by_the_keyboard(page):
    page.locator("#sizes circle[tabindex]").first.focus()
    assert "95% interval" in page.locator("#tip").inner_text()


def test_nothing_is_wider_than_a_telephone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})


def test_no_table_is_cut(page):
    """Every column is seen without scrolling, beside a chart too."""
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        cut = "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)"
        assert max(page.eval_on_selector_all(".scroll", cut)) == 0, width
    page.set_viewport_size({"width": 1280, "height": 900})
