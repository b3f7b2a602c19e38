"""What is simulated, and what became of it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What swarm is simulated."""

    islands: int = 3
    relays: int = 1
    dial_only: int = 0  # of the islands: they cannot be reached
    late: int = 0  # of the islands: they join with an empty disk while the others are under way
    outer_steps: int = 5
    inner_steps: int = 2
    stages: int = 1  # of the mixture, equally long
    checkpoint_every: int = 2
    step_seconds: float = 0.5
    codec: str = "fp32"


@dataclass(kw_only=True)
class Result:
    """What became of one schedule."""

    seed: int
    commits: int = 0
    participations: int = 0  # of islands in commits
    violations: list[str] = field(default_factory=list[str])  # of safety: what must never happen
    stalls: list[str] = field(
        default_factory=list[str]
    )  # of progress: calm for very long without a commit, or left behind
    virtual_seconds: float = 0.0
    worst_gap_seconds: float = 0.0
    num_steps: int = 0  # of processes
    faults: Counter[str] = field(default_factory=Counter[str])
    reports: Counter[str] = field(default_factory=Counter[str])
    excluded: Counter[str] = field(default_factory=Counter[str])  # by island: how often it was left out
    fingerprint: str = ""  # equal for equal schedules, to the last step
    story: list[str] = field(default_factory=list[str])

    @property
    def wrong(self) -> list[str]:
        """All that must not be."""
        return [*self.violations, *self.stalls]
