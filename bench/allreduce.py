"""How long an all-reduce takes on wide-area links, beside the least time that they leave for its bytes.

    python bench/allreduce.py --save [--only CASE ...] [--mtu 1500 9000] [--megabytes 33.6] [--scale 1]

As root; it needs `ip` and `gcc`. The product's own agents, with trainers that sleep, each at a site of its
own behind an emulated link (`links/wan.c`): rates both ways with headers, delay, loss, queues of 200 ms that
drop. One row a case and MTU; about a minute each.

`seconds` is from an attempt's opening, which follows the last proposal, to the commit, both at the
coordinator, without what the slowest disk took: the median of the steps after those of learning. `steps`
are all of them, from the first, with the disk. `bound` is the least time in which these links can carry
these bytes with slices chosen best, and two round trips; `ratio` is one over the other, `asked` what it
should be at most, and `predicted` the seconds that `atoll simulate --plan` tells. `planned`, `reduce` and
`hold` are what the coordinator expected of an attempt, and its parts. `utilisation` is what the busiest link
carried of what it could in these seconds, headers included; `drops` is how many packets found a full queue in
all of them, and `heartbeat` the longest round trip of one, in seconds. `participation` is the share of all
islands that took part, over all steps. `recovery_ratio` compares a joiner's `recovery_seconds` with what its
link needs beside the reductions. Where `num_attempts` is more than there are steps, attempts were lost.
`scale` makes all links slower, for a machine that cannot carry them. The case of Gloo is PyTorch's own
`all_reduce` of as many fp32 parameters, and only of these: its `bound` is that of the int8 bytes.

`--timeline` shows what each link carried in each quarter of a second, and when each island had sent its
payload, reduced its slices, given them away, and received all, in seconds from its attempt.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from agents.swarm import Swarm
from harness.report import Report, arguments
from links import gloo
from links.bound import least_seconds
from links.cases import CASES, Case
from links.meter import Meter
from links.wan import Wan

from atoll.agent.codecs import codec_named
from atoll.errors import UserError
from atoll.events import AttemptOpened, Committed, Joined, Ready
from atoll.simulate import plan as plan_of
from atoll.swarm.layout import BLOCK

JOINER = "joiner"
HOST_MBIT = 1000.0  # of the coordinator's site, which carries no bulk
PIECE_ELEMENTS = 65_536
STEP_SECONDS = 0.25
STEP_LIMIT_SECONDS = 400.0
PART_SECONDS = 0.25  # of a timeline


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--only", nargs="+", default=list(CASES), metavar="CASE", help=f"some of {list(CASES)}"
    )
    parser.add_argument("--mtu", nargs="+", type=int, default=[1500, 9000])
    parser.add_argument("--megabytes", type=float, default=33.6, help="encoded, of one payload")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all rates; delays are longer: 0.2 for a slow machine"
    )
    parser.add_argument("--timeline", action="store_true", help="show the steps that are counted")
    options = parser.parse_args()
    if unknown := set(options.only) - CASES.keys():
        raise UserError(f"--only {sorted(unknown)}: the cases are {list(CASES)}")
    report = Report("allreduce", options, keys=("case", "mtu", "megabytes", "scale"))
    for name, mtu in itertools.product(options.only, options.mtu):
        with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory:
            report.add(row(name, mtu, options, Path(directory)))


def row(name: str, mtu: int, options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """One case."""
    case = CASES[name].scaled(options.scale)
    codec = codec_named("int8")
    num_pieces = round(options.megabytes * 1e6 / codec.max_bytes(PIECE_ELEMENTS))
    num_bytes = num_pieces * codec.max_bytes(PIECE_ELEMENTS)
    names = [f"island{number}" for number in range(len(case.links))]
    bound = least_seconds(num_bytes, case.sites()) + 2 * case.round_trip_ms / 1e3
    found: dict[str, Any] = {
        "case": name,
        "mtu": mtu,
        "megabytes": round(num_bytes / 1e6, 1),
        "scale": options.scale,
    }
    if case.gloo:
        with Wan(mtu, case.congestion) as wan:
            for island, (up, down) in zip(names, case.links, strict=True):
                wan.add(island, up, down)
            wan.set_edges(case.round_trip_ms, case.loss)
            rounds = gloo.seconds(wan, names, num_pieces * PIECE_ELEMENTS)
        return found | {
            "seconds": round(gloo.counted(rounds), 2),
            "bound": round(bound, 2),
            "ratio": round(gloo.counted(rounds) / bound, 3),
            "steps": [round(each, 2) for each in rounds],
        }
    with Wan(mtu, case.congestion) as wan:
        wan.add("host", HOST_MBIT, HOST_MBIT)
        for island, (up, down) in zip(names, case.links, strict=True):
            wan.add(island, up, down)
        if case.relay_mbit:
            wan.add("relay", case.relay_mbit, case.relay_mbit)
        if case.joiner:
            wan.add(JOINER, *case.links[0])
        wan.set_edges(case.round_trip_ms, case.loss)
        elements = num_pieces * PIECE_ELEMENTS
        with (
            Meter(wan) as meter,
            Swarm(directory, elements, case.inner_steps, STEP_SECONDS, lan=wan) as swarm,
        ):
            swarm.host(extra=("--no-relay", "--wait-for", str(len(names))))
            if case.relay_mbit:
                swarm.relay("relay")
            for number, island in enumerate(names):
                swarm.island(island, dial_only=number < case.num_dial_only)
            for count in range(case.num_steps):
                if count == case.num_learning and case.change is not None:
                    case.change(case, wan)
                if count == case.num_learning and case.joiner:
                    swarm.island(JOINER, genesis=False)
                limit = STEP_LIMIT_SECONDS
                swarm.until(lambda count=count: swarm.committed() > count, f"{count + 1} commits", limit)
            joiner = swarm.island_id(JOINER) if case.joiner else ""
            islands = {swarm.island_id(name) for name in names}
            windows = swarm.reductions()
            opened = [event for event in swarm.events() if isinstance(event, AttemptOpened)]
            commits = [event for event in swarm.events() if isinstance(event, Committed)]
    steps = [end - begin for begin, end in windows]
    disks = [max(given.exchange.disk_seconds for given in c.participants.values()) for c in commits]
    beats = [
        given.exchange.beat_seconds
        for commit in commits[case.num_uncounted :]
        for given in commit.participants.values()
    ]
    if joiner:
        found |= recovery(swarm, joiner, meter, 125e3 * case.links[0][1])
    present = [len(islands & commit.participants.keys()) / len(names) for commit in commits]
    network = [step - disk for step, disk in zip(steps, disks, strict=True)]
    seconds = statistics.median(network[case.num_uncounted :])
    rates = case.rates(names)
    used = [(begin, end - disk) for (begin, end), disk in zip(windows, disks, strict=True)]
    used = used[case.num_uncounted :]
    if options.timeline:
        show(meter, used, rates, commits[case.num_uncounted :])
    return found | {
        "seconds": round(seconds, 2),
        "bound": round(bound, 2),
        "ratio": round(seconds / bound, 3),
        "asked": case.asked.get(mtu),
        "predicted": predicted(case, num_bytes),
        "steps": [round(step, 2) for step in steps],
        "planned": [round(event.planned_seconds, 2) for event in opened],
        "reduce": [round(commit.reduce_seconds, 2) for commit in commits],
        "hold": [round(commit.hold_seconds, 2) for commit in commits],
        "disk": [round(disk, 2) for disk in disks],
        "utilisation": round(statistics.median(meter.busiest(*window, rates) for window in used), 3),
        "drops": sum(c.up_drops + c.down_drops for window in used for c in meter.between(*window).values()),
        "heartbeat": round(max(beats, default=0.0), 3),
        "participation": round(statistics.mean(present), 3),
        "num_attempts": len(opened),
    }


def recovery(swarm: Swarm, joiner: str, meter: Meter, rate: float) -> dict[str, Any]:
    """From when an island joined until it held a state, and how that compares with what its link, of so many
    bytes a second, needs for what came while no reduction ran; None where it has not got that far.
    """
    mine = [event for event in swarm.events() if event.island == joiner]
    began = next((event.time for event in mine if isinstance(event, Joined)), math.inf)
    ended = next((event.time for event in mine if isinstance(event, Ready)), math.inf)
    if math.isinf(ended):
        return {"recovery_seconds": None, "recovery_ratio": None}
    least = meter.between(began, ended)[JOINER].received / rate
    return {
        "recovery_seconds": round(ended - began, 2),
        "recovery_ratio": round((ended - began) / (least + swarm.reducing_seconds(began, ended)), 3),
    }


def predicted(case: Case, num_bytes: int) -> float | None:
    """Seconds that `atoll simulate --plan` would tell; None where it does not know who may own."""
    if case.num_dial_only or case.num_barred:
        return None
    round_trip_seconds = case.round_trip_ms / 1e3
    plan = plan_of.Case(
        num_parameters=round(num_bytes / (codec_named("int8").max_bytes(BLOCK) / BLOCK)),
        links=case.last_links,
        relays=((case.relay_mbit, case.relay_mbit),) if case.relay_mbit else (),
        round_trip_seconds=round_trip_seconds,
        inner_steps=1,
        inner_step_seconds=1.0,
    )
    return round(plan_of.reduction(plan)[0] + 0.5 * round_trip_seconds, 2)


def show(
    meter: Meter,
    windows: list[tuple[float, float]],
    rates: dict[str, tuple[float, float]],
    commits: list[Committed],
) -> None:
    """Timelines of some steps, as lines of JSON on standard error."""
    for (begin, end), commit in zip(windows, commits, strict=True):
        for site, parts in meter.shares(begin, end, PART_SECONDS, rates).items():
            up, down = zip(*parts, strict=True)
            print(json.dumps({"step": commit.step, "site": site, "up": up, "down": down}), file=sys.stderr)
        for given in commit.participants.values():
            moments = {
                name: round(value, 2) for name, value in msgspec.structs.asdict(given.exchange).items()
            }
            print(json.dumps({"step": commit.step, **moments}), file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
