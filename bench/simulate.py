"""Schedules of faults in virtual time: how many a second, and whether anything was violated.

    python bench/simulate.py [--jobs 2] [--schedules 10000] [--state FILE]

Resumable: what is done is kept in FILE, one line for each batch of seeds. On two cores 10,000 schedules take
about three quarters of an hour.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness.report import Report, arguments

BATCH = 10
MAX_TOLD = 20  # violations printed in full


def batch(first: int) -> dict[str, Any]:
    """What became of BATCH seeds from `first` on."""
    from atoll.simulate import Tally, run, storm, swarm

    began = time.process_time()
    tally = Tally()
    for seed in range(first, first + BATCH):
        tally.add(run(seed, storm(seed), swarm(seed)))
    return {"first": first, "cpu_seconds": time.process_time() - began, **vars(tally)}


def many(schedules: int, jobs: int, state: Path) -> dict[str, Any]:
    """All batches, those of earlier runs included."""
    done = (
        {line["first"]: line for line in map(json.loads, state.read_text().splitlines())}
        if state.exists()
        else {}
    )
    wanted = range(0, schedules, BATCH)
    state.parent.mkdir(parents=True, exist_ok=True)
    began, fresh = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(jobs) as pool, state.open("a") as file:
        for line in pool.imap_unordered(batch, [first for first in wanted if first not in done]):
            done[line["first"]] = json.loads(json.dumps(line))
            file.write(json.dumps(line) + "\n")
            file.flush()
            fresh += line["schedules"]
    seconds = time.monotonic() - began
    lines = [done[first] for first in wanted]
    num_schedules = sum(line["schedules"] for line in lines)
    faults = sum((Counter(line["faults"]) for line in lines), Counter[str]())
    wrong = {seed: texts for line in lines for seed, texts in line["wrong"].items()}
    return {
        "schedules": num_schedules,
        "schedules_per_second": round(fresh / seconds, 1) if fresh else None,
        "schedules_per_cpu_second": round(num_schedules / sum(line["cpu_seconds"] for line in lines), 1),
        "virtual_hours": round(sum(line["virtual_seconds"] for line in lines) / 3600, 2),
        "commits": sum(line["commits"] for line in lines),
        "num_faults": faults.total(),
        "faults": faults,
        "violations": len(wrong),
        "violated": dict(list(wrong.items())[:MAX_TOLD]),
        "progress_bound_seconds": round(max(line["progress_bound_seconds"] for line in lines), 1),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--schedules", type=int, default=2_000)
    parser.add_argument(
        "--state", type=Path, default=None, help="where to keep what is done (default: nowhere)"
    )
    options = parser.parse_args()
    report = Report("simulate", options, keys=("schedules",))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    report.add(many(options.schedules, options.jobs, options.state or Path(os.devnull)))


if __name__ == "__main__":
    main()
