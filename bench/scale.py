"""What a coordinator costs with many members.

    python bench/scale.py [--islands 10 30 100 300 1000] [--profile FILE]

One coordinator (SQLite), no relay, and scripted agents in a few processes: real lines with certificates, each
pinged back, each beating as a real one does; no byte of a model travels. CPU is the coordinator's own, user
and system, all threads (/proc), so other load does not count. About ten minutes.

`cpu_ms_per_beat` is from the middle of the inner steps, when nothing but beats travels;
`cpu_seconds_per_step` is what an outer step costs beyond its beats: ready, plan, propose, attempt, reduced,
held, commit. The last line has the slopes between the largest two, log against log: a cost that does not
depend on the number of islands has 0, one in proportion to it 1.
"""

import math
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from agents.crowd import SPREAD_SECONDS, Options
from agents.supervised import Supervised
from agents.swarm import Swarm
from harness.report import Report, arguments

from atoll.agent.link import BEAT_SECONDS
from atoll.errors import UserError
from atoll.events import Committed
from atoll.swarm.address import Address

ELEMENTS = 64 << 16  # 64 pieces: so many own at most
CROWD = 250  # agents a process
STEPS = 3
MOST = 0.9  # of the islands take part in a step that counts
SETTLE_SECONDS = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--islands", type=int, nargs="+", default=[10, 30, 100, 300, 1000])
    parser.add_argument("--train-seconds", type=float, default=12.0, help="and one more for 50 islands")
    parser.add_argument(
        "--profile", type=Path, help="keep a cProfile of the coordinator (of the last row) here"
    )
    options = parser.parse_args()
    report = Report("scale", options, keys=("islands", "between"))
    rows: list[dict[str, Any]] = []
    for islands in options.islands:
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            rows.append(row(islands, options.train_seconds + islands / 50, Path(directory), options.profile))
            report.add(rows[-1])
    if len(rows) > 1:
        report.add(growth(*rows[-2:]))


def row(islands: int, train_seconds: float, directory: Path, profile: Path | None) -> dict[str, Any]:
    """One number of islands."""
    with Swarm(directory, ELEMENTS, 4, 0.0) as swarm:
        host = swarm.host("host", 7760, extra=("--no-relay",), profile=profile)
        empty = memory(host.pid)
        crowd(swarm, islands, train_seconds, directory)
        patience = 120.0 + islands / 2
        swarm.until(lambda: ready(swarm) >= islands, "all are ready", patience)
        joined = memory(host.pid)
        samples: list[tuple[float, float]] = []  # (time, CPU seconds so far)

        def enough() -> bool:
            samples.append((time.time(), cpu(host.pid)))
            return whole_steps(swarm, islands) > STEPS

        swarm.until(enough, f"{STEPS} outer steps of all", patience + 8 * STEPS * train_seconds)
        events = swarm.events()
        full = memory(host.pid)
    commits = [e for e in events if isinstance(e, Committed) and len(e.participants) >= MOST * islands]
    decide: list[float] = []
    beating, stepping, calm_seconds, all_seconds = 0.0, 0.0, 0.0, 0.0
    for a, b in pairwise(commits):
        first = max(e.time for e in events if e.kind == "ready" and a.time < e.time < b.time) + SETTLE_SECONDS
        last = a.time + train_seconds - SETTLE_SECONDS
        if last <= first:
            late = f"{first - a.time:.0f} s after a commit"
            raise UserError(f"{islands} islands were ready only {late}: give more --train-seconds")
        beating, calm_seconds = beating + used(samples, first, last), calm_seconds + last - first
        stepping, all_seconds = stepping + used(samples, a.time, b.time), all_seconds + b.time - a.time
        attempt = next(e.time for e in events if e.kind == "attempt" and a.time < e.time < b.time)
        decide.append(b.time - attempt)
    share = beating / calm_seconds
    step = (stepping - share * all_seconds) / len(decide)
    return {
        "islands": islands,
        "cpu_ms_per_beat": round(1e3 * share * BEAT_SECONDS / islands, 3),
        "cpu_share_of_beats": round(share, 3),
        "cpu_seconds_per_step": round(step, 3),
        "cpu_ms_per_step_and_island": round(1e3 * step / islands, 2),
        "attempt_to_commit_seconds": round(statistics.median(decide), 2),
        "megabytes": {"empty": round(empty), "joined": round(joined), "after_steps": round(full)},
        "kilobytes_per_island": round(1e3 * (full - empty) / islands),
        "frozen": sum(e.kind == "frozen" for e in events),
        "left": sum(e.kind == "left" for e in events),
    }


def crowd(swarm: Swarm, islands: int, train_seconds: float, directory: Path) -> None:
    """The scripted agents, at most CROWD a process."""
    for number, start in enumerate(range(0, islands, CROWD)):
        size = min(CROWD, islands - start)
        options = Options(
            run_dir=str(swarm.run_dir.path),
            directory=str(directory / f"crowd{number}"),
            coordinator=Address("127.0.0.1", 7760),
            host="127.0.0.1",
            islands=size,
            train_seconds=train_seconds + SPREAD_SECONDS,
        )
        arguments = ["agents.crowd", msgspec.json.encode(options).decode()]
        name = f"crowd{number}"
        swarm.hosts[name] = Supervised(name, arguments, directory / f"{name}.log", None, 3.0)


def ready(swarm: Swarm) -> int:
    return len({e.island for e in swarm.events() if e.kind == "ready"})


def whole_steps(swarm: Swarm, islands: int) -> int:
    """Commits that most took part in."""
    return sum(isinstance(e, Committed) and len(e.participants) >= MOST * islands for e in swarm.events())


def cpu(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> float:
    """Resident megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def used(samples: list[tuple[float, float]], begin: float, end: float) -> float:
    """CPU seconds between two moments, from the samples next to them."""
    first = min(samples, key=lambda s: abs(s[0] - begin))
    last = min(samples, key=lambda s: abs(s[0] - end))
    return last[1] - first[1]


def growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """How a beat's and a step's cost grow from one row to another, log against log."""

    def slope(key: str) -> float:
        return round(math.log(large[key] / small[key]) / math.log(large["islands"] / small["islands"]), 2)

    return {
        "between": [small["islands"], large["islands"]],
        "slope_per_beat": slope("cpu_ms_per_beat"),
        "slope_per_step": slope("cpu_seconds_per_step"),
    }


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
