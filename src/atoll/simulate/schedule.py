"""What is simulated, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What swarm is simulated."""

    islands: int = 4
    relays: int = 1
    dial_only: int = 0  # of the islands: they cannot be reached
    late: int = 0  # of the islands: they join with an empty disk while the others are under way
    outer_steps: int = 5
    inner_steps: int = 3
    stages: int = 1  # of the mixture, equally long
    checkpoint_every: int = 4
    step_seconds: float = 0.5


@dataclass(kw_only=True)
class Result:
    """What became of one schedule."""

    seed: int
    commits: int = 0
    participations: int = 0  # of islands in commits
    violations: list[str] = field(default_factory=list)  # of safety: what must never happen
    stalls: list[str] = field(default_factory=list)  # of progress: calm for very long without a commit
    laggards: list[str] = field(default_factory=list)  # up at the end, and not at the head
    virtual_seconds: float = 0.0
    worst_gap_seconds: float = 0.0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    fingerprint: str = ""  # equal for equal schedules, to the last event
    story: list[str] = field(default_factory=list)
