"""Draws the dashboard for docs/dashboard.md, of a run that never was: `python docs/dashboard_picture.py`.

Needs a Chromium and playwright. The run is that of bench/harness/told.py, with a status as its coordinator
would give it; `--dir` keeps the page as well.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

DOCS_DIR = Path(__file__).resolve().parent
sys.path.append(str(DOCS_DIR.parent / "bench"))
from harness import told  # noqa: E402

from atoll.dashboard import html, page  # noqa: E402
from atoll.dashboard.source import Source  # noqa: E402
from atoll.events import Alert  # noqa: E402
from atoll.metrics import Metrics  # noqa: E402
from atoll.run.directory import RunDir  # noqa: E402
from atoll.status import IslandStatus, RunStatus  # noqa: E402

NUM_ISLANDS, NUM_STEPS = 14, 240
PICTURES = {"dark": (1440, 1830), "light": (1440, 1830), "phone": (390, 1250)}


def status_of(source: Source, num_outer_steps: int) -> RunStatus:
    """What a coordinator would say of the run at this moment."""
    islands = source.reducer.islands
    rows = [
        IslandStatus(
            island=key,
            contributor=island.contributor,
            place=island.place,
            relay=False,
            present=island.alive,
            ready=island.alive,
            evicted="",
            addresses=(),
            note="" if number else "left out of this step: recovering, chunk 512 of 1,024",
            inner_step=40 + 3 * number,
            planned_inner_steps=100 if number else 0,
            metrics=Metrics(tokens_per_second=4_900.0 + 37 * number, compute_seconds=80.0, wait_seconds=12.0),
            sent_bytes=0,
            up_mbit=400.0,
            down_mbit=800.0,
            utilisation=0.83 + 0.006 * number,
            committed_tokens=island.tokens,
            committed_tokens_by_source={},
        )
        for number, (key, island) in enumerate(islands.items())
    ]
    return RunStatus(
        hosted=True,
        time=time.time(),
        run_id=source.reducer.run_id,
        name="reef",
        term=1,
        finished=False,
        stall="",
        step=source.reducer.step,
        num_outer_steps=num_outer_steps,
        num_inner_steps=100,
        num_islands=len(rows),
        num_awaited=1,
        root="",
        attempt=0,
        proposed=(),
        committed_tokens=source.reducer.steps.tokens,
        ledger={},
        sent_bytes=0,
        islands=tuple(rows),
        evaluation=None,
        events=(),
    )


def kept(directory: Path) -> Path:
    """The page of the run, as a file."""
    began = time.time() - 40 * NUM_STEPS - 20
    events = list(told.told(NUM_ISLANDS, NUM_STEPS, began))
    missed = Alert(time=time.time() - 90, island=events[4].island, what="missed", value=3, threshold=3)
    told.write(directory / "events.jsonl", iter([*events, missed]))
    source = Source(RunDir(directory))
    source.reducer.about = msgspec.structs.replace(
        source.reducer.about,
        name="reef",
        inner_steps=100,
        tokens_per_inner_step=2_048,
        num_parameters=1_227_000_000,
        codec="int8",
        mixture=[{"books": 0.8, "python": 0.2}],
    )
    steps = source.reducer.steps
    steps.num_parameters, steps.inner_steps = 1_227_000, 100
    source.read_all()
    source.reducer.see(status_of(source, 904))
    path = directory / "reef.html"
    path.write_bytes(page.kept_page(html.kept(source)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, help="keep the page here")
    options = parser.parse_args()
    from PIL import Image
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        path = kept(options.dir or Path(temporary))
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (width, height) in PICTURES.items():
            scheme = "light" if name == "light" else "dark"
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(path.resolve().as_uri())
            tab.wait_for_function("() => document.getElementById('loss').plot")
            tab.wait_for_timeout(500)
            taken = Image.open(io.BytesIO(tab.screenshot()))
            taken.quantize(64).save(DOCS_DIR / f"dashboard-{name}.png", optimize=True)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
