"""How long an all-reduce takes on wide-area links, beside the least time that they leave for its bytes.

    python bench/allreduce.py --save [--only CASE ...] [--mtu 1500 9000] [--megabytes 33.6] [--scale 1]

As root; it needs `ip` and `gcc`. The product's own agents, with trainers that sleep, each at a site of its
own behind an emulated link (`links/wan.c`): rates both ways with headers, delay, loss, queues of 200 ms that
drop. One row a case and MTU; about a minute each.

`seconds` is from an attempt's opening, which follows the last proposal, to the commit, both at the
coordinator, without what the slowest disk took: the median of the steps after those of learning. `steps`
are all of them, from the first, with the disk. `bound` is the least time in which these links can carry
these bytes with slices chosen best, and two round trips; `ratio` is one over the other, `asked` what it
should be at most. `planned`, `reduce` and `hold` are what the coordinator expected of an attempt, and its
parts. `participation` is the share of all islands that took part, over all steps. Where `num_attempts` is
more than there are steps, attempts were lost. `scale` makes all links slower, for a machine that cannot
carry them.
"""

import itertools
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.swarm import Swarm
from harness.report import Report, arguments
from links.bound import Link, least_seconds
from links.wan import Wan

from atoll.agent.codecs import codec_named
from atoll.errors import UserError
from atoll.events import AttemptOpened, Committed

HOST_MBIT = 1000.0  # of the coordinator's site, which carries no bulk
PIECE_ELEMENTS = 65_536
STEP_SECONDS = 0.25
STEP_LIMIT_SECONDS = 400.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some islands behind links, and how near to the bound they should come."""

    links: tuple[tuple[float, float], ...]  # of the islands: Mbit/s up and down
    round_trip_ms: float
    loss: float = 0.0
    congestion: str = "cubic"
    relay_mbit: float = 0.0  # of a relay beside them; 0: there is none
    num_dial_only: int = 0  # the first ones
    num_learning: int = 2  # steps that are not counted
    num_counted: int = 3
    inner_steps: int = 16
    asked: dict[int, float]  # the ratio to reach, by MTU


def equal(mbit: float, count: int = 4) -> tuple[tuple[float, float], ...]:
    return ((mbit, mbit),) * count


NEAR, FAR = {9000: 1.05, 1500: 1.10}, {9000: 1.3, 1500: 1.3}
HOME = ((50.0, 200.0),) * 4
UNEQUAL = ((50.0, 50.0), (100.0, 100.0), (200.0, 200.0), (200.0, 200.0))
CASES = {
    **{
        f"4 x {mbit} Mbit/s, RTT {rtt} ms, loss {100 * loss:g} %": Case(
            links=equal(mbit), round_trip_ms=rtt, loss=loss, asked=NEAR
        )
        for mbit, rtt, loss in itertools.product((100, 200), (20, 100), (0.0, 0.0001))
    },
    "4 x 100 Mbit/s, RTT 200 ms, loss 0.1 %": Case(
        links=equal(100), round_trip_ms=200, loss=0.001, asked=FAR
    ),
    "4 x 100 Mbit/s, RTT 200 ms, loss 0.1 %, bbr": Case(
        links=equal(100),
        round_trip_ms=200,
        loss=0.001,
        congestion="bbr",
        asked={9000: 1.10, 1500: 1.10},
    ),
    "the first step": Case(
        links=equal(100),
        round_trip_ms=100,
        loss=0.0001,
        num_learning=0,
        num_counted=1,
        asked={9000: 1.4, 1500: 1.4},
    ),
    "links 50, 100, 200, 200": Case(
        links=UNEQUAL, round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "home links 50 up, 200 down": Case(
        links=HOME, round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "home links and a relay of 400": Case(
        links=HOME, round_trip_ms=100, loss=0.0001, relay_mbit=400, asked=dict.fromkeys(NEAR, 1.06)
    ),
    "one only dials out": Case(
        links=equal(100), round_trip_ms=100, loss=0.0001, num_dial_only=1, asked=dict.fromkeys(NEAR, 1.10)
    ),
    "all only dial out, a relay of 400": Case(
        links=equal(100),
        round_trip_ms=100,
        loss=0.0001,
        relay_mbit=400,
        num_dial_only=4,
        asked=dict.fromkeys(NEAR, 1.10),
    ),
    "16 x 20 Mbit/s": Case(
        links=equal(20, 16), round_trip_ms=100, loss=0.0001, asked=dict.fromkeys(NEAR, 1.15)
    ),
    "50 steps": Case(
        links=equal(100), round_trip_ms=100, loss=0.0001, num_counted=48, inner_steps=4, asked=NEAR
    ),
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=list(CASES), metavar="CASE", help=f"some of {list(CASES)}"
    )
    parser.add_argument("--mtu", nargs="+", type=int, default=[1500, 9000])
    parser.add_argument("--megabytes", type=float, default=33.6, help="encoded, of one payload")
    parser.add_argument("--scale", type=float, default=1.0, help="of all links: 0.2 for a slow machine")
    options = parser.parse_args()
    if unknown := set(options.only) - CASES.keys():
        raise UserError(f"--only {sorted(unknown)}: the cases are {list(CASES)}")
    report = Report("allreduce", options, keys=("case", "mtu", "megabytes", "scale"))
    for name, mtu in itertools.product(options.only, options.mtu):
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            report.add(row(name, mtu, options.megabytes, options.scale, Path(directory)))


def row(name: str, mtu: int, megabytes: float, scale: float, directory: Path) -> dict[str, Any]:
    """One case."""
    case = scaled(CASES[name], scale)
    codec = codec_named("int8")
    num_pieces = round(megabytes * 1e6 / codec.max_bytes(PIECE_ELEMENTS))
    num_bytes = num_pieces * codec.max_bytes(PIECE_ELEMENTS)
    names = [f"island{number}" for number in range(len(case.links))]
    with Wan(mtu, case.congestion) as wan:
        wan.add("host", HOST_MBIT, HOST_MBIT)
        for island, (up, down) in zip(names, case.links, strict=True):
            wan.add(island, up, down)
        if case.relay_mbit:
            wan.add("relay", case.relay_mbit, case.relay_mbit)
        wan.set_edges(case.round_trip_ms, case.loss)
        elements = num_pieces * PIECE_ELEMENTS
        with Swarm(directory, elements, case.inner_steps, STEP_SECONDS, lan=wan) as swarm:
            swarm.host(extra=("--no-relay", "--wait-for", str(len(names))))
            if case.relay_mbit:
                swarm.relay("relay")
            for number, island in enumerate(names):
                swarm.island(island, dial_only=number < case.num_dial_only)
            for count in range(1, 1 + case.num_learning + case.num_counted):
                limit = STEP_LIMIT_SECONDS
                swarm.until(lambda count=count: swarm.committed() >= count, f"{count} commits", limit)
            steps = reductions(swarm)
            opened = [event for event in swarm.events() if isinstance(event, AttemptOpened)]
            commits = [event for event in swarm.events() if isinstance(event, Committed)]
    disks = [max(given.exchange.disk_seconds for given in c.participants.values()) for c in commits]
    present = [len(commit.participants) / len(names) for commit in commits]
    network = [step - disk for step, disk in zip(steps, disks, strict=True)]
    seconds = statistics.median(network[case.num_learning :])
    bound = least_seconds(num_bytes, sites(case)) + 2 * case.round_trip_ms / 1e3
    return {
        "case": name,
        "mtu": mtu,
        "megabytes": round(num_bytes / 1e6, 1),
        "scale": scale,
        "seconds": round(seconds, 2),
        "bound": round(bound, 2),
        "ratio": round(seconds / bound, 3),
        "asked": case.asked[mtu],
        "steps": [round(step, 2) for step in steps],
        "planned": [round(event.planned_seconds, 2) for event in opened],
        "reduce": [round(commit.reduce_seconds, 2) for commit in commits],
        "hold": [round(commit.hold_seconds, 2) for commit in commits],
        "disk": [round(disk, 2) for disk in disks],
        "participation": round(statistics.mean(present), 3),
        "num_attempts": len(opened),
    }


def scaled(case: Case, scale: float) -> Case:
    """The case on links of so much of its rates."""
    links = tuple((scale * up, scale * down) for up, down in case.links)
    return replace(case, links=links, relay_mbit=scale * case.relay_mbit)


def sites(case: Case) -> list[Link]:
    """The case's links as the bound sees them."""
    links = [
        Link(mbit=min(link), owner=number >= case.num_dial_only) for number, link in enumerate(case.links)
    ]
    if case.relay_mbit:
        links.append(Link(mbit=case.relay_mbit, participant=False))
    return links


def reductions(swarm: Swarm) -> list[float]:
    """Seconds of each committed step, from the opening of its first attempt to its commit."""
    opened: dict[int, float] = {}
    found: list[float] = []
    for event in swarm.events():
        if isinstance(event, AttemptOpened):
            opened.setdefault(event.step, event.time)
        elif isinstance(event, Committed):
            found.append(event.time - opened[event.step])
    return found


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
