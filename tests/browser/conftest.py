"""A Chromium of the machine's own, driven by playwright. Without one these tests are skipped, and say why."""

import shutil
from collections.abc import Callable, Generator

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    """A headless browser."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="the page is tried with playwright: pip install -e '.[dev]'"
    )
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no browser here, so the page is not tried in one; apt-get install chromium brings one")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def opened(browser) -> Generator[Callable]:
    """Opens an address at a size; whatever the page complains of fails the test."""
    contexts, complaints = [], []

    def open_page(address: str, width: int = 1440, height: int = 900, theme: str = "dark"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address, timeout=60_000)
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
