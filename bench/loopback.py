"""How fast two agents reduce where no link limits them: what the software itself costs.

    python bench/loopback.py [--megabytes 134]

The product's own agents, with trainers that sleep, on this machine's loopback. `seconds` is from an attempt's
opening to its commit, without what the slowest disk took, the median of the steps after the first;
`gigabytes_per_second` counts the fp32 parameters. `reduce` and `hold` are the parts of it.
"""

import statistics
import tempfile
from pathlib import Path

from agents.swarm import Swarm
from harness.report import Report, arguments

from atoll.events import AttemptOpened, Committed

NUM_STEPS = 4
INNER_STEPS, STEP_SECONDS = 8, 0.25
PIECE_ELEMENTS = 65_536
LIMIT_SECONDS = 300.0


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--megabytes", type=float, default=134.0, help="of fp32 parameters")
    options = parser.parse_args()
    report = Report("loopback", options, keys=("megabytes",), packages=("grpcio",))
    num_elements = round(options.megabytes * 1e6 / 4 / PIECE_ELEMENTS) * PIECE_ELEMENTS
    with (
        tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory,
        Swarm(Path(directory), num_elements, INNER_STEPS, STEP_SECONDS) as swarm,
    ):
        swarm.host(port=0, extra=("--no-relay", "--wait-for", "2"))
        for name in ("a", "b"):
            swarm.island(name)
        swarm.until(lambda: swarm.committed() > NUM_STEPS, f"{NUM_STEPS} commits", LIMIT_SECONDS)
        events = swarm.events()
    opened = {event.step: event.time for event in reversed(events) if isinstance(event, AttemptOpened)}
    commits = [event for event in events if isinstance(event, Committed)][1:]
    seconds = statistics.median(
        commit.time
        - opened[commit.step]
        - max(given.exchange.disk_seconds for given in commit.participants.values())
        for commit in commits
    )
    report.add(
        {
            "megabytes": options.megabytes,
            "seconds": round(seconds, 3),
            "gigabytes_per_second": round(4 * num_elements / seconds / 1e9, 3),
            "reduce": round(statistics.median(commit.reduce_seconds for commit in commits), 3),
            "hold": round(statistics.median(commit.hold_seconds for commit in commits), 3),
        }
    )


if __name__ == "__main__":
    main()
