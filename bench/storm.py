"""What faults cost a swarm of real agents, in work that is lost or waited for.

    python bench/storm.py [--islands 32] [--faults 50] [--inner-seconds 0.5]     # as root

Real agents, transport and codec; trainers that sleep; every island on a link of its own. First some calm
outer steps, the measure; then faults at `--per-step` an outer step (0.7 is 125 an hour at outer steps of 20
s): kill -9 of an island, or of its agent alone; freezes; cuts of its link; kill -9 of the coordinator with
its relay. Every tenth one waits for an attempt and strikes between its opening and its commit. What was
killed is started again after --restart-seconds by the same command. What the figures mean is in
agents/aftermath.py.

The default takes about a quarter of an hour: steps of 11 s, in which what does not shrink (2.5 s until
silence is noticed, 3 s until a restart, the start itself) weighs twice as much as it would at 20 s.
`--inner-seconds 0.96 --faults 200` is the storm at full length, an hour and a half.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from agents.aftermath import Aftermath, Fault
from agents.lan import Lan
from agents.swarm import POLL_SECONDS, Swarm, lost_commits
from harness.report import Report, arguments

from atoll.errors import UserError
from atoll.events import Committed

ELEMENTS = 8 << 16  # 8 pieces: more owners would only be more connections, which two cores pay dearly
INNER_STEPS = 20
KINDS = {"kill": 8, "kill agent": 4, "freeze": 4, "cut": 3, "kill coordinator": 1}  # how often each, in 20
LASTS_SECONDS = (3.0, 10.0)  # freezes and cuts
AIMED = 10  # every so-manyth fault waits for an attempt
CALM_STEPS = 8
PATIENCE_SECONDS = 300.0


class Storm:
    """Strikes a swarm, and remembers what it did."""

    def __init__(self, swarm: Swarm, lan: Lan, choose: random.Random) -> None:
        self.faults: list[Fault] = []
        self._swarm, self._lan, self._choose = swarm, lan, choose

    def strike(self) -> None:
        """One fault, on an island that lives and is under no other."""
        held = {fault.target for fault in self.faults if not fault.over}
        whole = [
            n
            for n, i in self._swarm.islands.items()
            if n not in held and i.child.alive and self._swarm.agent_pid(n)
        ]
        kind = self._choose.choices(list(KINDS), list(KINDS.values()))[0]
        if kind != "kill coordinator" and not whole:
            return
        target = "host" if kind == "kill coordinator" else self._choose.choice(whole)
        lasts = self._choose.uniform(*LASTS_SECONDS) if kind in ("freeze", "cut") else 0.0
        now = time.time()
        self.faults.append(
            Fault(
                kind=kind,
                target=target,
                at=now,
                until=now + lasts,
                over=not lasts,
                in_attempt=attempt_open(self._swarm),
            )
        )
        match kind:
            case "kill agent":
                self._swarm.kill_agent(target)
            case "freeze":
                self._swarm.freeze(target)
            case "cut":
                self._lan.cut(target)
            case _:
                self._swarm.kill(target)

    def tend(self) -> None:
        """End freezes and cuts whose time is over."""
        for fault in self.faults:
            if not fault.over and time.time() >= fault.until:
                (self._swarm.thaw if fault.kind == "freeze" else self._lan.heal)(fault.target)
                fault.until, fault.over = time.time(), True

    def pass_over(self, faults: int, outer_seconds: float, per_step: float) -> None:
        """All faults at random moments, then quiet until nothing lasts any more."""
        for number in range(faults):
            self.wait_until(time.monotonic() + self._choose.expovariate(per_step / outer_seconds))
            if number % AIMED == AIMED - 1:
                deadline = time.monotonic() + 2 * outer_seconds
                while not attempt_open(self._swarm) and time.monotonic() < deadline:
                    self.wait_until(time.monotonic() + POLL_SECONDS / 2)
            self.strike()
        while not all(fault.over for fault in self.faults):
            self.wait_until(time.monotonic() + POLL_SECONDS)

    def wait_until(self, moment: float) -> None:
        while True:
            self.tend()
            self._swarm.tend()
            if (left := moment - time.monotonic()) <= 0:
                return
            time.sleep(min(POLL_SECONDS, left))


def attempt_open(swarm: Swarm) -> bool:
    """Whether the newest of an attempt, its end and a commit is an attempt."""
    kinds = (e.kind for e in reversed(swarm.events()))
    return (
        next((k for k in kinds if k in ("attempt", "attempt closed", "committed", "term")), "") == "attempt"
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--islands", type=int, default=32)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--per-step", type=float, default=0.7, help="faults per outer step")
    parser.add_argument(
        "--inner-seconds", type=float, default=0.5, help=f"of an inner step; {INNER_STEPS} make an outer step"
    )
    parser.add_argument("--restart-seconds", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, help="keep what the run left here (default: nowhere)")
    options = parser.parse_args()
    report = Report("storm", options, keys=("islands", "inner_seconds", "faults", "seed"))
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as directory, Lan() as lan:
        report.add(run(options, options.dir or Path(directory), lan))


def run(options: argparse.Namespace, directory: Path, lan: Lan) -> dict[str, object]:
    """The whole of it: calm steps, the storm, and what it did."""
    names = [f"i{number}" for number in range(options.islands)]
    for name in ("host", *names):
        lan.add(name)
    with Swarm(
        directory,
        ELEMENTS,
        INNER_STEPS,
        options.inner_seconds,
        lan=lan,
        restart_seconds=options.restart_seconds,
    ) as swarm:
        swarm.host()
        for name in names:
            swarm.island(name)
        swarm.until(lambda: last_participants(swarm) == len(names), "all take part", PATIENCE_SECONDS)
        first = swarm.committed()
        swarm.until(lambda: swarm.committed() >= first + CALM_STEPS, "calm outer steps", PATIENCE_SECONDS)
        calm = [e.time for e in swarm.events() if e.kind == "committed"][first - 1 : first + CALM_STEPS]
        storm = Storm(swarm, lan, random.Random(options.seed))
        storm.pass_over(options.faults, (calm[-1] - calm[0]) / CALM_STEPS, options.per_step)
        last = swarm.committed()
        swarm.until(lambda: swarm.committed() >= last + 2, "two commits after the storm", PATIENCE_SECONDS)
        aftermath = Aftermath(swarm, storm.faults, calm[0], calm[-1])
        (directory / "faults.jsonl").write_text(
            "".join(json.dumps(vars(fault)) + "\n" for fault in storm.faults)
        )
    records = swarm.records()
    lost = lost_commits(records, [swarm.kept_by(name) for name in (*names, "relay")])
    return {
        "islands": len(names),
        "inner_seconds": options.inner_seconds,
        **aftermath.figures(records),
        "lost_commits": lost,
        "restart_seconds": options.restart_seconds,
        "seed": options.seed,
    }


def last_participants(swarm: Swarm) -> int:
    return next((len(e.participants) for e in reversed(swarm.events()) if isinstance(e, Committed)), 0)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"atoll: {error}") from None
