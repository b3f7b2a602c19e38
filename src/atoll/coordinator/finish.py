"""Finish: when the members hear that the run is over."""

import math

from atoll.coordinator.effects import Effects
from atoll.coordinator.members import Members
from atoll.swarm.messages import Finished


class Finish:
    """After the last commit: once all that are here hold the last state, or had time to."""

    def __init__(self, members: Members, last_seconds: float) -> None:
        self._members = members
        self._last_seconds = last_seconds
        self._due = math.inf

    def tell(self, head: int, now: float, do: Effects) -> None:
        """Tell whoever may know; state `head` is the last."""
        self._due = min(self._due, now + self._last_seconds)
        if self._members.any_behind(head) and do.too_early(self._due, now):
            return
        do.send_all(self._members.tell_finished(head), Finished(head))
