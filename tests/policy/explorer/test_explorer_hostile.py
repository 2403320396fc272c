"""Hostile names and addresses, in a real browser: they stay text, and nothing runs or loads."""

import pytest
from explorer_tables import CLASSES, HOSTILE


@pytest.mark.parametrize(
    "hash",
    [
        "#photo=99999&sort=b77&color=b99&low=-3&high=1e9&view=1_2&lasso=1_2_3",
        "#class=%3Cimg%20src%3Dx%20onerror%3Dwindow.owned%3D1%3E%20&q=%3Cscript%3E",
        "#classes=%3Cb%3E_x&pair=1_1e5&theme=javascript:1&show=__proto__&__proto__=1&constructor=2",
        "#q=%E0%A4%A&===&&photo",
        "#view=NaN_Infinity_0&lasso=" + "_".join(["1e300"] * 500),
    ],
)
def test_a_broken_or_hostile_address_is_harmless(watched, explorer, hash):
    page = watched.open(explorer.url + hash)
    assert page.evaluate("ElasticExplorer.app.state.now.photo") == -1
    assert page.evaluate("ElasticExplorer.app.state.now.sort") == "table"
    assert page.locator("b, script:not([src]), img[onerror]").count() == 0


def test_hostile_names_are_text(page, explorer):
    row = explorer.table.column("path").index(next(p for p in explorer.table.column("path") if "onerror" in p))
    page.evaluate(f"ElasticExplorer.app.state.set({{photo: {row}}})")
    assert explorer.table.column("path")[row] in page.inner_text("#detail")
    page.keyboard.press("Escape")
    hostile_class = CLASSES.index(HOSTILE)
    page.evaluate(f"ElasticExplorer.app.state.set({{photo: {hostile_class}}})")
    assert page.inner_text("#detail-title") == HOSTILE
    page.keyboard.press("Escape")
    page.evaluate("(names) => ElasticExplorer.app.state.set({photo: -1, classes: names})", [CLASSES[2], CLASSES[3]])
    assert CLASSES[3] in page.locator("#compare h3").all_inner_texts()
    assert HOSTILE in page.locator("#map-legend").inner_text()
    assert page.locator("img[onerror]").count() == 0
    assert page.locator("script").count() == page.locator("script[src]").count()


def test_the_policy_of_the_page_refuses_foreign_sources(browser, explorer):
    """Even a script that runs in the page reaches nothing elsewhere and sets up no inline script."""
    page = browser.new_page()
    refused, requests = [], []
    page.on("console", lambda message: refused.append(message.text))
    page.on("requestfinished", lambda request: requests.append(request.url))
    page.goto(explorer.url)
    requests.clear()
    page.evaluate("""async () => {
      const image = new Image(); image.src = "http://127.0.0.1:9/x.png"; document.body.append(image);
      const script = document.createElement("script"); script.textContent = "window.owned = 1";
      document.body.append(script);
      await fetch("http://127.0.0.1:9/").catch(() => 0);
    }""")
    assert page.evaluate("window.owned") is None
    assert sum("Content Security Policy" in text for text in refused) >= 3
    assert [url for url in requests if not url.startswith("file:")] == []
    page.close()
