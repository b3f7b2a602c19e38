"""Swarms and faults drawn from a seed: small swarms of every kind, a few faults of any kind at any moment."""

import random
from collections.abc import Callable

from atoll.simulate import faults as f
from atoll.simulate import faults_of_disks as d
from atoll.simulate import faults_of_edges as n
from atoll.simulate.fault import NOW, Fault, Moment
from atoll.simulate.schedule import Setting

SPAN_SECONDS, MAX_FAULTS = 14.0, 8
# What a death may be aimed at: the messages of an outer step and of a recovery.
MESSAGES = (
    *("Hello", "Ready", "Plan", "Propose", "Attempt", "ReduceOpen", "Piece", "Reduced", "Assembled", "Held"),
    *("Committed", "Adopt", "Adopted", "Proposed", "WantRecords", "Records"),
    *("FetchChunk", "FetchTable", "FetchHeader", "FetchPieces", "FetchSliceTable", "Found", "Donors"),
)

# Before bytes are read that have lain on a disk for a while.
BEFORE_READING = ("Attempt", "Assembled", "Committed", "Hello", "FetchChunk", "FetchPieces", "Plan")


def swarm(seed: int) -> Setting:
    """A small swarm; the same for the same seed."""
    rng = random.Random(f"swarm {seed}")
    islands = rng.choice([1, 2, 2, 3, 3, 3, 4])
    return Setting(
        islands=islands,
        relays=rng.choice([1, 1, 0]),
        dial_only=rng.choice([0, 0, 0, 1, islands]),
        late=rng.choice([0, 0, 1]) if islands > 2 else 0,
        outer_steps=rng.randint(3, 7),
        inner_steps=rng.choice([1, 2, 2, 3]),
        stages=rng.choice([1, 1, 2]),
        checkpoint_every=rng.choice([1, 2, 2, 4]),
        step_seconds=rng.choice([0.1, 0.4]),
        codec=rng.choice(["fp32", "fp32", "int8"]),
    )


def storm(seed: int, span_seconds: float = SPAN_SECONDS, max_faults: int = MAX_FAULTS) -> list[Fault]:
    """Up to `max_faults` faults within `span_seconds`; the same for the same seed."""
    rng = random.Random(f"storm {seed}")
    faults = (_fault(rng, span_seconds) for _ in range(rng.randint(1, max_faults)))
    return sorted(faults, key=lambda fault: fault.at)


def moment(rng: random.Random) -> Moment:
    """When an armed fault strikes."""
    kind = rng.choice(["now", "steps", "lines", "lines", "syncs", "syncs", "message", "message", "message"])
    match kind:
        case "now":
            return NOW
        case "steps":
            return Moment(kind, rng.randrange(40))
        case "lines":
            return Moment(kind, int(rng.expovariate(1 / 800)))
        case "syncs":
            return Moment(kind, rng.randrange(24))
        case _:
            return Moment(rng.choice(MESSAGES), rng.choice([0, 0, 1, 2, 5]))


def _fault(rng: random.Random, span_seconds: float) -> Fault:
    at = round(rng.uniform(0.0, span_seconds), 2)
    who, other = rng.randrange(8), rng.randrange(8)
    seconds = round(rng.choice([0.5, 3.0, 8.0, 14.0, 25.0]) * rng.uniform(0.7, 1.3), 1)
    parts: list[f.Part] = ["agent", "agent", "trainer", "both", "power", "power"]
    makers: list[Callable[[], Fault]] = [
        *[lambda: f.Crash(at, who, rng.choice(parts), moment(rng), round(seconds / 8, 1))] * 4,
        *[lambda: f.CoordinatorCrash(at, moment(rng), round(seconds / 10, 1), rng.random() < 0.3)] * 2,
        lambda: f.Backup(at, rng.choice([1, 1, 2]), round(seconds / 5, 1), rng.random() < 0.7),
        lambda: f.GoBack(at, rng.choice([1, 1, 2, 3])),
        lambda: f.Takeover(at, rng.random() < 0.6),
        lambda: f.Freeze(at, who, seconds),
        lambda: n.Cut(at, who, other, rng.choice([seconds, seconds, 400.0]), rng.random() < 0.4),
        lambda: n.Partition(at, rng.randrange(1, 256), seconds),
        lambda: n.Congestion(at, who, other, rng.choice([3.0, 10.0, 40.0]), seconds),
        lambda: n.Reset(at, who, other, rng.random() < 0.5),
        lambda: f.Stall(at, who, seconds),
        lambda: f.Slow(at, who, rng.choice([2.0, 4.0, 8.0]), seconds),
        lambda: f.ClockRate(at, who, rng.choice([0.9, 1.01, 1.1])),
        lambda: f.Leave(at, who),
        lambda: d.FalseBytes(at, who, seconds),
        lambda: d.Rot(at, who, state=True),
        *[lambda: d.Rot(at, who, moment=Moment(rng.choice(BEFORE_READING), rng.randrange(3)))] * 2,
        lambda: d.FullDisk(at, who, round(seconds / 4, 1)),
        lambda: d.FullDatabase(at, round(seconds / 6, 1)),
        lambda: d.SlowDisk(at, who, seconds),
    ]
    return rng.choice(makers)()
