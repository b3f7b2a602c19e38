"""How long each island has made the others wait, within all deadlines; kept over outer steps.

A deadline leaves room for whoever is unlucky once. Who uses that room in every step would make steps of
seconds several times as long, and nobody would ever call it late.
"""

from collections.abc import Callable, Mapping
from statistics import median_high

ALLOWED_SHARE = 0.1  # of everybody's time, that one island may cost again and again
ALLOWED_SECONDS = 3.0  # besides: a process that stands still once is noticed after 2.5 s
MIN_OTHERS = 2  # of other hands: of two alone nobody can tell who is slow


class Delays:
    """An account of each island: what it delays is added, and a share of each committed step is taken off."""

    def __init__(self, hand: Callable[[str], str]) -> None:
        """`hand`: as in `standing.py`; islands of one hand are not compared with one another."""
        self._hand = hand
        self._seconds: dict[str, float] = {}

    def compare(self, times: Mapping[str, float], step_seconds: float) -> dict[str, float]:
        """Note when each island did what all wait for; return the overdrawn accounts, as `note` does.

        An island delays the others by as much as it is later than half of those that are of other hands.
        """
        found: dict[str, float] = {}
        for island, at in times.items():
            others = [other for name, other in times.items() if self._hand(name) != self._hand(island)]
            late_seconds = at - median_high(others) if len(others) >= MIN_OTHERS else 0.0
            if late_seconds > 0:
                found[island] = self.note(island, late_seconds, step_seconds)
        return {island: seconds for island, seconds in found.items() if seconds}

    def note(self, island: str, seconds: float, step_seconds: float) -> float:
        """An island has delayed the others in a step of that length.

        Returns what it has on its account once that is more than is allowed, and clears it; else 0.
        """
        total = self._seconds.pop(island, 0.0) + seconds
        if total > ALLOWED_SECONDS + ALLOWED_SHARE * step_seconds:
            return total
        self._seconds[island] = total
        return 0.0

    def note_committed(self, step_seconds: float) -> None:
        """A step that lasted so long is over: a share of it is forgiven to everybody."""
        left = {i: seconds - ALLOWED_SHARE * step_seconds for i, seconds in self._seconds.items()}
        self._seconds = {island: seconds for island, seconds in left.items() if seconds > 0}
