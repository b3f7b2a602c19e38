"""What became of many schedules."""

from collections import Counter
from dataclasses import dataclass, field

from atoll.simulate.schedule import Result


@dataclass(kw_only=True)
class Tally:
    """Sums over schedules, and the worst of them."""

    schedules: int = 0
    commits: int = 0
    virtual_seconds: float = 0.0
    progress_bound_seconds: float = 0.0  # the longest that a commit took while nothing stood in its way
    faults: Counter[str] = field(default_factory=Counter[str])
    wrong: dict[int, list[str]] = field(default_factory=dict[int, list[str]])  # seed -> violations, stalls

    def add(self, result: Result) -> None:
        self.schedules += 1
        self.commits += result.commits
        self.virtual_seconds += result.virtual_seconds
        self.progress_bound_seconds = max(self.progress_bound_seconds, result.worst_gap_seconds)
        self.faults += result.faults
        if result.wrong:
            self.wrong[result.seed] = result.wrong
