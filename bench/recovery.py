"""How long a joiner takes, beside what its link needs for the state's bytes.

    python bench/recovery.py [--row 200 4 100 --row 2000 2 400]     # as root; MEGABYTES DONORS MBIT

Donors train; an island that has nothing joins in the middle of an outer step, so that one commit falls into
its recovery and the donors' links also carry a reduce. Every site has a link of its own, shaped by `tc` to
the rate of the row, both ways, headers included. Some minutes a row.

`ratio` is the time from the joiner's start (python, enrolment, everything) until the coordinator counts it
ready, its trainer loaded and proven, over 8 x state bytes / rate. While donors reduce, a recovery waits:
`ratio_of_left` is over that and the `reducing_seconds` in which an attempt was open meanwhile. `received` is
what came over its link, over the state's bytes: chunks travel shrunk, and the update of the commit comes
besides. `donor_slowdown` is how much longer the donors' inner steps took meanwhile; `outer_step_slowdown` the
same for the outer step that the recovery fell into, where reduce and recovery share the donors' links.
"""

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from agents.lan import Lan
from agents.swarm import Swarm, lost_commits
from harness.report import Report, arguments

from atoll.errors import UserError
from atoll.events import Committed

ROWS = [(200, 1, 100.0), (200, 4, 100.0), (2000, 2, 400.0)]  # megabytes of state, donors, Mbit/s
STATE_BYTES = 8  # per parameter
STEP_SECONDS = 0.25
SHARE = 1.0  # the inner steps of an outer step, in units of the time that the link needs
FIRST_SECONDS = 300.0


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--row", nargs=3, action="append", type=float, metavar=("MEGABYTES", "DONORS", "MBIT")
    )
    options = parser.parse_args()
    report = Report("recovery", options, keys=("state_megabytes", "donors", "mbit_per_second"))
    rows = [(int(size), int(donors), rate) for size, donors, rate in options.row or ROWS]
    for size, donors, rate in rows:
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory, Lan() as lan:
            report.add(row(size, donors, rate, Path(directory), lan))


def row(megabytes: int, num_donors: int, rate: float, directory: Path, lan: Lan) -> dict[str, Any]:
    """One joiner."""
    elements = megabytes * 10**6 // STATE_BYTES // 4096 * 4096
    ideal = 8 * STATE_BYTES * elements / (rate * 1e6)
    inner_steps = max(8, round(SHARE * ideal / STEP_SECONDS))
    donors = [f"donor{k}" for k in range(num_donors)]
    lan.add("host")
    for name in (*donors, "joiner"):
        lan.add(name, rate)
    with Swarm(directory, elements, inner_steps, STEP_SECONDS, lan=lan) as swarm:
        swarm.host(extra=("--no-relay",))
        for name in donors:
            swarm.island(name)
        swarm.until(lambda: swarm.committed() >= 2, "two commits", FIRST_SECONDS + 6 * SHARE * ideal)
        half = inner_steps // 2
        swarm.until(lambda: progress(swarm, donors[0]) >= half, "the middle of a step", FIRST_SECONDS)
        began, commits_before = time.time(), swarm.committed()
        swarm.island("joiner", genesis=False)
        swarm.until(lambda: ready(swarm) is not None, "the joiner is ready", 20 * ideal + 60)
        ended, received = ready(swarm) or began, lan.received("joiner")
        commits_during = swarm.committed() - commits_before
        joiner = swarm.island_id("joiner")
        swarm.until(
            lambda: any(joiner in e.participants for e in swarm.events() if isinstance(e, Committed)),
            "the joiner takes part",
            FIRST_SECONDS + 4 * SHARE * ideal,
        )
        took_part = next(
            e.time for e in swarm.events() if isinstance(e, Committed) and joiner in e.participants
        )
        last = swarm.committed()
        swarm.until(lambda: swarm.committed() > last, "one more commit", FIRST_SECONDS + 4 * SHARE * ideal)
        notes = [swarm.journal(name) for name in donors]
        commits = [e.time for e in swarm.events() if e.kind == "committed"]
        reducing = swarm.reducing_seconds(began, ended)
        unequal = sum(e.kind == "unequal" for e in swarm.events())
    inside, outside = inner_gaps(notes, began, ended)
    calm = [b - a for a, b in itertools.pairwise(commits) if b < began]
    struck = [b - a for a, b in itertools.pairwise(commits) if a < began < b]
    return {
        "state_megabytes": round(STATE_BYTES * elements / 1e6),
        "donors": num_donors,
        "mbit_per_second": rate,
        "ideal_seconds": round(ideal, 2),
        "join_seconds": round(ended - began, 2),
        "ratio": round((ended - began) / ideal, 3),
        "reducing_seconds": round(reducing, 2),
        "ratio_of_left": round((ended - began) / (ideal + reducing), 3),
        "received": round(received / (STATE_BYTES * elements), 3),
        "commits_during_join": commits_during,
        "seconds_to_first_commit": round(took_part - began, 2),
        "donor_slowdown": round(statistics.mean(inside) / statistics.mean(outside) - 1, 4),
        "inner_steps_compared": [len(inside), len(outside)],
        "outer_step_slowdown": round(statistics.mean(struck) / statistics.mean(calm) - 1, 3)
        if calm and struck
        else None,
        "unequal_roots": unequal,
        "lost_commits": lost_commits(swarm.records(), [swarm.kept_by(name) for name in (*donors, "joiner")]),
    }


def progress(swarm: Swarm, name: str) -> int:
    """Inner steps done in the step that an island is at."""
    notes = swarm.journal(name)
    return notes[-1]["inner"] if notes and notes[-1]["what"] == "inner" else 0


def ready(swarm: Swarm) -> float | None:
    """When the coordinator counted the joiner as ready, its trainer included; None before."""
    joiner = swarm.island_id("joiner")
    return next((e.time for e in swarm.events() if e.kind == "ready" and e.island == joiner), None)


def inner_gaps(
    journals: list[list[dict[str, Any]]], began: float, ended: float
) -> tuple[list[float], list[float]]:
    """Seconds of donors' inner steps: those wholly while the joiner joined, and the others."""
    inside: list[float] = []
    outside: list[float] = []
    for notes in journals:
        for a, b in itertools.pairwise(notes):
            if a["what"] == b["what"] == "inner":
                if began <= a["time"] and b["time"] <= ended:
                    inside.append(b["time"] - a["time"])
                elif b["time"] < began or a["time"] > ended:
                    outside.append(b["time"] - a["time"])
    return inside, outside


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
