"""Deadlines learned from what happened: median + K x MAD of past durations, with a floor."""

from collections import deque
from statistics import median

K = 5.0
FLOOR_SECONDS = 2.0
FLOOR_SHARE = 0.05  # of the median: what ordinary jitter may take
MAX_DOUBLINGS = 5
MEMORY = 64  # durations remembered


class Deadline:
    """How long one kind of wait may take. Late arrivals are observed too, so the median learns."""

    def __init__(self, initial_seconds: float) -> None:
        """`initial_seconds` holds until the first observation."""
        self.initial_seconds = initial_seconds
        self._seen: deque[float] = deque(maxlen=MEMORY)

    def observe(self, seconds: float) -> None:
        self._seen.append(seconds)

    @property
    def middle(self) -> float:
        """The median of what was seen, `initial_seconds` before anything was."""
        return median(self._seen) if self._seen else self.initial_seconds

    def patience(self, attempt: int) -> float:
        """Seconds for attempt number 1, 2, …: deadlines double per attempt, up to a bound."""
        return self.seconds() * 2 ** min(max(0, attempt - 1), MAX_DOUBLINGS)

    def seconds(self) -> float:
        """After so long it is waited for no more."""
        return self.middle + max(self._margin(), FLOOR_SECONDS) if self._seen else self.initial_seconds

    def usual(self) -> float:
        """After so long whoever still could be in time is so: half-way from the median to what ordinary
        jitter may take.
        """
        return self.middle + self._margin() / 2 if self._seen else self.initial_seconds

    def _margin(self) -> float:
        middle = self.middle
        return max(K * median(abs(s - middle) for s in self._seen), FLOOR_SHARE * middle)
