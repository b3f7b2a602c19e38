"""What the dashboard costs: its server with many watchers, the weight of its page, and how soon it is there.

    python bench/dashboard.py [--watchers 50] [--seconds 20] [--only watched]

The row `watched` is a run of 500 islands: the server's share of a core while nobody watches and while so many
do, with an event a second (which renews the map and the table) and a commit every five, and the bytes that a
browser fetches for the page as it opens. `training_slowed` is what the idle server takes of this machine's
cores, which is all that training beside it can lose. The row `long` is a run of 10,000 outer steps. Both say
how soon a headless Chromium shows the first chart after it is sent to the address, or that none is here, and
how long the server takes to read the events at its start. The row `death` is a live run of two islands: from
the `kill -9` of one until the page says that it is gone. Some minutes.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from agents.swarm import Swarm
from harness import told
from harness.report import Report, arguments

from atoll.dashboard import page
from atoll.events import Event, Ready
from atoll.events.log import VERSION
from atoll.run.processes import Child

RUNS = {"watched": (500, 60), "long": (20, 10_000)}  # islands, outer steps
COMMIT_SECONDS = 5.0  # between two commits while somebody watches
PARTS = ("about", "now", "islands", "steps", "story")
START_SECONDS = 600.0


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", choices=[*RUNS, "death"])
    options = parser.parse_args()
    report = Report("dashboard", options, keys=("run",), packages=("starlette", "uvicorn"))
    for name, (islands, steps) in RUNS.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
                row = Row(Path(directory), islands, steps)
                with contextlib.closing(row):
                    report.add({"run": name, **row.figures(options.watchers, options.seconds)})
    if options.only in (None, "death") and chromium():
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            report.add(
                {"run": "death", "islands": 2, "gone_seconds": round(gone_seconds(Path(directory)), 2)}
            )


class Row:
    """A run that never was, and a server that shows it."""

    def __init__(self, directory: Path, num_islands: int, num_steps: int) -> None:
        self._events = directory / "events.jsonl"
        self._size = num_islands, num_steps
        # What comes while somebody watches is of the same run, a little longer.
        made = told.told(num_islands, num_steps + 40, time.time())
        told.write(self._events, itertools.takewhile(lambda event: event.step < num_steps, made))
        self._more = made
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        arguments = ["atoll", "dashboard", str(directory), "--listen", self._address]
        self._server = Child(arguments, log=directory / "dashboard.log")

    def close(self) -> None:
        self._server.stop()

    def figures(self, num_watchers: int, seconds: float) -> dict[str, Any]:
        islands, steps = self._size
        began = time.monotonic()
        while not self._is_read(steps):
            if time.monotonic() > began + START_SECONDS or not self._server.alive:
                raise SystemExit("the dashboard does not come up")
            time.sleep(0.1)
        read_seconds = time.monotonic() - began
        found: dict[str, Any] = {
            "islands": islands,
            "outer_steps": steps,
            "events_bytes": self._events.stat().st_size,
            "read_seconds": round(read_seconds, 2),
            "page_bytes": sum(len(self._got(name)) for name in self._names()),
            **first_chart(f"http://{self._address}/"),
        }
        idle = self._cores(0, seconds / 2)
        return found | {
            "watchers": num_watchers,
            "cores_idle": round(idle, 4),
            "cores_watched": round(self._cores(num_watchers, seconds), 4),
            "training_slowed": round(idle / (os.cpu_count() or 1), 5),
        }

    def _names(self) -> list[str]:
        return ["", *page.files(), *(f"part/{name}" for name in PARTS)]

    def _got(self, name: str) -> bytes:
        """As a browser gets it: compressed."""
        request = urllib.request.Request(
            f"http://{self._address}/{name}", headers={"Accept-Encoding": "gzip"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def _is_read(self, steps: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/part/now", timeout=60) as answer:
                return msgspec.json.decode(answer.read())["step"] >= steps
        except OSError:
            return False

    def _cores(self, num_watchers: int, seconds: float) -> float:
        """The server's share of a core, with so many watchers."""
        host, port = self._address.split(":")
        return asyncio.run(self._watched(host, int(port), num_watchers, seconds))

    async def _watched(self, host: str, port: int, num_watchers: int, seconds: float) -> float:
        watching = [asyncio.ensure_future(watch(host, port)) for _ in range(num_watchers)]
        writing = asyncio.ensure_future(self._go_on())
        await asyncio.sleep(2.0)  # the first fetch of everything is counted as the page's, not here
        before, began = cpu_seconds(self._server.process.pid), time.monotonic()
        await asyncio.sleep(seconds)
        spent = cpu_seconds(self._server.process.pid) - before
        share = spent / (time.monotonic() - began)
        for task in (*watching, writing):
            failure = task.exception() if task.done() and not task.cancelled() else None
            task.cancel()
            if failure is not None:
                raise failure
        await asyncio.gather(*watching, writing, return_exceptions=True)
        return share

    async def _go_on(self) -> None:
        """The run goes on: an event a second, and a commit with what comes before it every five."""
        for number in itertools.count(1):
            await asyncio.sleep(1.0)
            if number % COMMIT_SECONDS:
                self._append(Ready(time=time.time(), island="f" * 16, step=0, trainer=True, root=""))
                continue
            for event in self._more:
                self._append(event)
                if event.kind == "committed":
                    break

    def _append(self, event: Event) -> None:
        line = {"version": VERSION, **msgspec.to_builtins(event), "text": event.text}
        with self._events.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


async def watch(host: str, port: int) -> None:
    """What a page does: hear the news, and fetch what is newer."""
    news, teller = await asyncio.open_connection(host, port)
    fetched, asker = await asyncio.open_connection(host, port)
    teller.write(b"GET /news HTTP/1.1\r\nHost: bench\r\n\r\n")
    try:
        while line := await news.readline():
            if not line.startswith(b"data: {"):
                continue
            for name in msgspec.json.decode(line[6:]):
                asker.write(
                    f"GET /part/{name} HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: gzip\r\n\r\n".encode()
                )
                head = await fetched.readuntil(b"\r\n\r\n")
                length = next(
                    part for part in head.lower().split(b"\r\n") if part.startswith(b"content-length")
                )
                await fetched.readexactly(int(length.split(b":")[1]))
    finally:
        teller.close()
        asker.close()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def gone_seconds(directory: Path) -> float:
    """From the death of an island until a page that shows its run says so."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with Swarm(directory, 1 << 16, 4, 0.25, restart_seconds=1e9) as swarm, browser() as opened:
        swarm.host(port=0, extra=("--dashboard", address))
        for name in ("a", "b"):
            swarm.island(name)
        swarm.until(lambda: len(committed(swarm)) >= 3, "three commits", 300.0)
        tab = opened.new_page()
        tab.goto(f"http://{address}/")
        alive = """([id, state]) => document.querySelector(`#islands a[href="#island=${id}"]`)?.closest("tr")
            .querySelector("[data-label=alive] b").textContent === state"""
        island = swarm.island_id("b")
        tab.wait_for_function(alive, arg=[island, "yes"], timeout=120_000)
        began = time.monotonic()
        swarm.kill("b")
        tab.wait_for_function(alive, arg=[island, "no"], timeout=120_000)
        return time.monotonic() - began


def committed(swarm: Swarm) -> list[Event]:
    return [event for event in swarm.events() if event.kind == "committed"]


def chromium() -> str | None:
    """Where a browser is; None where there is none, or nothing to drive it."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def first_chart(address: str) -> dict[str, Any]:
    """Seconds from the order to open the page until its first chart is drawn; twice, the second is told."""
    if chromium() is None:
        return {"first_chart_seconds": None}
    with browser() as opened:
        taken = 0.0
        for _ in range(2):
            tab = opened.new_page(viewport={"width": 1440, "height": 900})
            began = time.monotonic()
            tab.goto(address, wait_until="commit")
            tab.wait_for_function("() => document.getElementById('loss').plot", timeout=120_000)
            taken = time.monotonic() - began
            tab.close()
    return {"first_chart_seconds": round(taken, 2)}


if __name__ == "__main__":
    main()
