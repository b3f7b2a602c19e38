"""What a sink is."""

from collections.abc import Iterable
from typing import Protocol

from atoll.sinks.figures import Figure


class Sink(Protocol):
    """Takes figures to one tool."""

    def take(self, figures: Iterable[Figure], step: int, time: float, notable: bool) -> None:
        """The figures that an event has changed; `step` counts committed outer steps.

        `time`: of the event, in seconds since the epoch. `notable`: a commit or an evaluation, of which a
        curve has a point.
        """
        ...

    def close(self) -> None:
        """Write what is still to be written."""
        ...
