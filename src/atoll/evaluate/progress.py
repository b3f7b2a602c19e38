"""How far a measurement is."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Requests of one task that are answered."""

    task: str
    num_done: int
    num_requests: int
    seconds_left: float | None  # at the pace since this start; None before the first batch


Report = Callable[[Progress], None]


class Pace:
    """Counts the requests of one kind that a task makes, and estimates the time that the rest will take.

    lm-eval asks the longest first, so that it will be less.
    """

    def __init__(self, task: str, num_requests: int, num_known: int) -> None:
        """`num_known`: of the requests, those that were answered before this start."""
        self._task, self._num_requests, self._num_known = task, num_requests, num_known
        self._num_new = 0
        self._started = time.monotonic()

    def add(self, num_answered: int) -> Progress:
        """How far it is after so many more answers."""
        self._num_new += num_answered
        elapsed = time.monotonic() - self._started
        num_left = self._num_requests - self._num_known - self._num_new
        return Progress(
            task=self._task,
            num_done=self._num_known + self._num_new,
            num_requests=self._num_requests,
            seconds_left=elapsed * num_left / self._num_new if self._num_new else None,
        )
