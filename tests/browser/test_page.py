"""The page in a browser: it shows what the events say, live and kept, to everybody, at every width."""

import contextlib
import re
import socket
import time
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from agents.swarm import Swarm
from harness import told

from atoll.dashboard import html
from atoll.events import Committed, Left, Recovered
from atoll.run.directory import RunDir

EVIL = "<b onmouseover=alert(1)>Eve</b>"
WIDTHS = (320, 390, 768, 1024, 1440, 1920)
WAIT = 60_000  # milliseconds until a page must show something, on whatever machine
SERIOUS = {"serious", "critical"}


def text_of(page, selector: str) -> str:
    return page.locator(selector).inner_text()


def data_of(page, chart: str) -> list[list[float | None]]:
    """What a chart holds, column by column."""
    return page.evaluate("id => document.getElementById(id).plot.data.map(column => [...column])", chart)


def faults_of(page) -> list[str]:
    """What axe finds that keeps people out."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in SERIOUS]


# ------------------------------------------------------------------------------------------------ a kept file
@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The file of a run with an island whose name is markup."""
    directory = tmp_path_factory.mktemp("kept")
    events = list(told.told(13, 40, time.time() - 2_000))
    island = next(event.island for event in events if event.kind == "joined")
    left = Left(time=time.time() - 1, island=island, step=40, reason=EVIL)
    told.write(directory / "events.jsonl", iter([*events, left]))
    # In a thread of its own: playwright keeps an event loop in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(html.write, RunDir(directory), directory / "run.html").result()
    return directory / "run.html"


def test_a_kept_file_shows_the_run_offline_with_words_as_words(kept, opened) -> None:
    page = opened(kept.as_uri())
    page.wait_for_function("() => document.getElementById('loss').plot", timeout=WAIT)
    assert len(data_of(page, "loss")[0]) == 40
    assert EVIL in text_of(page, "#timeline")
    assert not page.locator("#timeline b").count()
    assert "no coordinator answers" in text_of(page, "#state")
    assert "not known" in text_of(page, "#tiles")
    assert page.locator("#map a").count() > 2
    assert "Not on the map" in text_of(page, "#unplaced")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_no_serious_fault(kept, opened, theme) -> None:
    page = opened(kept.as_uri(), theme=theme)
    page.wait_for_function("() => document.getElementById('loss').plot", timeout=WAIT)
    assert not faults_of(page)
    page.locator("#islands tbody a").first.click()
    page.wait_for_selector("#island[open] .uplot", timeout=WAIT)
    assert not faults_of(page)


def test_no_width_scrolls_sideways(kept, opened) -> None:
    page = opened(kept.as_uri())
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        # charts take their new width in the next frame
        fits = "width => document.documentElement.scrollWidth <= width"
        page.wait_for_function(fits, arg=width, timeout=10_000)


def test_everything_can_be_reached_by_keyboard(kept, opened) -> None:
    page = opened(kept.as_uri())
    page.wait_for_function("() => document.getElementById('loss').plot", timeout=WAIT)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#loss").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.getElementById('loss').plot.cursor.idx") == 38
    page.locator("#islands tbody a").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#island[open]", timeout=WAIT)
    assert re.search("#island=[0-9a-f]{16}$", page.url)
    page.keyboard.press("Escape")
    page.wait_for_selector("#island:not([open])", state="attached", timeout=WAIT)
    assert "#island" not in page.url


# ----------------------------------------------------------------------------------------- a run that goes on
@pytest.fixture(scope="module")
def swarm(tmp_path_factory) -> Generator[tuple[Swarm, str]]:
    """Two islands, real processes whose trainers only sleep, and the address of their page."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    directory = tmp_path_factory.mktemp("live")
    with Swarm(directory, elements=1 << 16, inner_steps=4, step_seconds=0.25, restart_seconds=1e9) as live:
        live.host(port=0, extra=("--dashboard", address))
        for name in ("a", "b"):
            live.island(name)
        live.until(lambda: commits(live) >= 3, "three commits", 120.0)
        yield live, f"http://{address}/"


def commits(swarm: Swarm) -> int:
    return sum(isinstance(event, Committed) for event in swarm.events())


def open_when_there(opened, address: str):
    """The page, once the process that serves it is up."""
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1):
            return opened(address)
        time.sleep(0.1)
    raise AssertionError("the dashboard does not come up")


def test_a_live_run_with_churn_is_shown_as_it_goes(swarm, opened) -> None:
    live, address = swarm
    page = open_when_there(opened, address)
    row = page.locator("#islands tbody tr", has=page.locator(f'a[href="#island={live.island_id("b")}"]'))
    row.get_by_text("yes").first.wait_for(timeout=WAIT)
    page.wait_for_function(
        "() => !document.getElementById('state').textContent.includes('no coordinator')", timeout=WAIT
    )

    live.kill("b")
    live.until(lambda: any(isinstance(event, Left) for event in live.events()), "its death is noticed", 30.0)
    page.wait_for_function(
        "id => document.querySelector(`#islands a[href='#island=${id}']`).closest('tr')"
        ".querySelector('[data-label=alive] b').textContent === 'no'",
        arg=live.island_id("b"),
        timeout=WAIT,
    )
    before = commits(live)
    live.islands["b"].child.stop()  # it has ended; so is it waited for
    live.islands["b"].start()
    live.until(lambda: sum(isinstance(event, Recovered) for event in live.events()) > 0, "its return", 90.0)
    page.wait_for_function(
        "id => document.querySelector(`#islands a[href='#island=${id}']`).closest('tr')"
        ".querySelector('[data-label=alive] b').textContent === 'yes'",
        arg=live.island_id("b"),
        timeout=WAIT,
    )
    live.until(lambda: commits(live) >= before + 2, "commits go on", 60.0)
    page.wait_for_function(
        "n => document.getElementById('loss').plot.data[0].length >= n", arg=before + 1, timeout=WAIT
    )
    held = [event for event in live.events() if isinstance(event, Committed)]
    tokens, _, _, losses, _ = data_of(page, "loss")
    assert losses == pytest.approx([event.loss for event in held][: len(losses)], rel=1e-5)
    total, sums = 0, []
    for event in held:
        total += event.tokens
        sums.append(total)
    assert tokens == sums[: len(tokens)]
    for kind in ("join", "death", "recovery"):
        page.wait_for_function("kind => atoll.marks.some(mark => mark.kind === kind)", arg=kind, timeout=WAIT)
    assert "is gone" in text_of(page, "#timeline")


def test_a_lost_connection_is_told_and_found_again(swarm, opened) -> None:
    _, address = swarm
    page = open_when_there(opened, address)
    page.wait_for_function("() => document.getElementById('loss').plot", timeout=WAIT)
    assert not page.locator("#lost").is_visible()
    page.context.set_offline(True)
    page.evaluate("lost(true)")
    page.locator("#lost").wait_for(state="visible", timeout=WAIT)
    page.context.set_offline(False)
    page.locator("#lost").wait_for(state="hidden", timeout=WAIT)
    opened.complaints.clear()  # the browser's own, about what it could not load meanwhile
