"""The timeline in words: the last events that are not routine, with names in the place of ids."""

from collections import deque

from atoll.dashboard.view import MAX_LINES, Line
from atoll.events import AttemptClosed, Event, Fault
from atoll.terminal.names import Names
from atoll.words import one_line

# Of an attempt that is made again there is a line already in what became of it: another attempt, or a stall.
UNTOLD = (Fault, AttemptClosed)


class Timeline:
    """Keeps the last lines of a run, or of one island of it."""

    def __init__(self, names: Names, max_lines: int = MAX_LINES) -> None:
        self._names = names
        self._kept: deque[Event] = deque(maxlen=max_lines)

    def hear(self, event: Event) -> None:
        """The next event."""
        if not event.routine and not isinstance(event, UNTOLD):
            self._kept.append(event)

    def lines(self) -> list[Line]:
        """The lines, newest first."""
        return [
            Line(
                time=event.time,
                kind=event.kind,
                island=one_line(event.island, 64),
                text=one_line(self._names.within(event.text)),
            )
            for event in reversed(self._kept)
        ]
