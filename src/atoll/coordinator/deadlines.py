"""Deadlines learned from past durations: their median, plus K times their median absolute deviation (MAD)."""

from collections import deque
from statistics import median

K = 5.0
FLOOR_SECONDS = 2.0  # the least margin above the median
FLOOR_SHARE = 0.05  # the least margin as a share of the median: ordinary jitter takes that much
MAX_DOUBLINGS = 5
NUM_REMEMBERED = 64  # durations


class Deadline:
    """How long one kind of wait may take. Late arrivals are to be observed too, so that the median learns."""

    def __init__(self, initial_seconds: float) -> None:
        """`initial_seconds` is the answer to every question until the first duration is observed."""
        self.initial_seconds = initial_seconds
        self._seen_seconds: deque[float] = deque(maxlen=NUM_REMEMBERED)

    def observe(self, seconds: float) -> None:
        """Remember a duration."""
        self._seen_seconds.append(seconds)

    @property
    def is_learned(self) -> bool:
        """Whether a duration was observed."""
        return bool(self._seen_seconds)

    @property
    def median_seconds(self) -> float:
        """The median of the last durations."""
        return median(self._seen_seconds) if self._seen_seconds else self.initial_seconds

    def limit_seconds(self) -> float:
        """How long to wait before going on without whoever is late."""
        if not self._seen_seconds:
            return self.initial_seconds
        return self.median_seconds + max(self._margin_seconds(), FLOOR_SECONDS)

    def attempt_limit_seconds(self, number: int) -> float:
        """The limit in attempt `number`, from 1."""
        return doubled(self.limit_seconds(), number)

    def usual_seconds(self) -> float:
        """After how long all have come that are not unusually late: the median plus half the margin."""
        if not self._seen_seconds:
            return self.initial_seconds
        return self.median_seconds + self._margin_seconds() / 2

    def _margin_seconds(self) -> float:
        middle = self.median_seconds
        mad = median(abs(seconds - middle) for seconds in self._seen_seconds)
        return max(K * mad, FLOOR_SHARE * middle)


def doubled(seconds: float, number: int) -> float:
    """A duration in attempt `number` (from 1): it doubles with each attempt, up to MAX_DOUBLINGS times."""
    return seconds * 2 ** min(max(0, number - 1), MAX_DOUBLINGS)
