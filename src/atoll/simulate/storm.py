"""Swarms and faults drawn from a seed: small swarms of every kind, a few faults of any kind at any moment."""

import random
from collections.abc import Callable

from atoll.simulate import faults as f
from atoll.simulate.schedule import Setting


def swarm(seed: int) -> Setting:
    """A small swarm; the same for the same seed."""
    rng = random.Random(f"swarm {seed}")
    islands = rng.randint(1, 6)
    return Setting(
        islands=islands,
        relays=rng.choice([1, 1, 0]),
        dial_only=rng.choice([0, 0, 0, 1, islands]),
        late=rng.choice([0, 0, 1, 2]) if islands > 2 else 0,
        outer_steps=rng.randint(3, 8),
    )


def storm(seed: int, span_seconds: float = 20.0, max_faults: int = 8, backups: bool = True) -> list[f.Fault]:
    """Up to `max_faults` faults within `span_seconds`, the same for the same seed; `backups` too, or not."""
    rng = random.Random(f"storm {seed}")
    faults = (_fault(rng, span_seconds, backups) for _ in range(rng.randint(0, max_faults)))
    return sorted(faults, key=lambda fault: fault.at)


def _fault(rng: random.Random, span_seconds: float, backups: bool) -> f.Fault:
    at = rng.uniform(0.0, span_seconds)
    who, other = rng.randrange(8), rng.randrange(8)
    seconds = rng.choice([0.5, 3.0, 8.0, 14.0, 25.0, 40.0]) * rng.uniform(0.7, 1.3)
    effects = rng.choice([0, 0, 1, 2, 3, 5, 8, 13])
    makers: list[Callable[[], f.Fault]] = [
        lambda: f.Crash(at, who, effects, seconds / 3, rng.random() < 0.3),
        lambda: f.Crash(at, who, effects, seconds / 10, rng.random() < 0.3),
        lambda: f.CoordinatorCrash(at, effects, seconds / 10, rng.random() < 0.3),
        *([lambda: f.Backup(at, rng.randint(1, 2), seconds / 5)] if backups else []),
        lambda: f.Takeover(at, seconds / 4),
        lambda: f.Freeze(at, who, seconds),
        lambda: f.Cut(at, who, other, seconds, rng.random() < 0.4),
        lambda: f.Partition(at, rng.randrange(1, 256), seconds),
        lambda: f.Congestion(at, who, other, rng.choice([3.0, 10.0, 40.0]), seconds),
        lambda: f.Reset(at, who, other, rng.random() < 0.5),
        lambda: f.Stall(at, who, seconds),
        lambda: f.Slow(at, who, rng.choice([2.0, 4.0, 8.0]), seconds),
        lambda: f.ClockJump(at, who, rng.choice([5.0, 60.0, 3600.0])),
        lambda: f.ClockRate(at, who, rng.choice([0.9, 1.01, 1.1])),
        lambda: f.FalseBytes(at, who, seconds),
        lambda: f.Leave(at, who),
    ]
    return rng.choice(makers)()
