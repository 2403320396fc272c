"""A built explorer, and a page that is watched."""

import pytest
from explorer_tables import Explorer, build


@pytest.fixture(scope="session")
def explorer(tmp_path_factory) -> Explorer:
    return build(tmp_path_factory.mktemp("explorer"))


class Watched:
    """A page whose messages and requests are kept."""

    def __init__(self, context):
        self.page = context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url: str):
        self.page.goto("about:blank")  # else a change of the hash alone loads nothing
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready='1']")
        return self.page


@pytest.fixture
def watched(browser):
    """At its end: no message on the console, no error, no request but for files, and no hostile name ran."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    watched = Watched(context)
    yield watched
    assert watched.problems == []
    assert {url.split(":")[0] for url in watched.requests} <= {"file", "about"}
    assert watched.page.evaluate("window.owned") is None
    context.close()


@pytest.fixture
def page(watched, explorer):
    return watched.open(explorer.url)
