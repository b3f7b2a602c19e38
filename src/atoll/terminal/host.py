"""What `atoll host` says: joins, deaths, commits, what is wrong, and the end, a line each."""

from atoll.events import (
    AttemptClosed,
    AttemptOpened,
    Committed,
    Enrolled,
    Event,
    Fault,
    Joined,
    Ready,
    ReignBegan,
)
from atoll.terminal.figures import clock, duration, human, loss_of
from atoll.terminal.names import Names
from atoll.terminal.terminal import Terminal
from atoll.words import listed

# What belongs to every step, or comes before a stall that is told.
NOT_TOLD = (Enrolled, Ready, AttemptOpened, AttemptClosed, Fault, ReignBegan)
MAX_NAMED = 4  # participants of a commit


class Host:
    """Hears the coordinator's events."""

    def __init__(self, terminal: Terminal, num_outer_steps: int) -> None:
        self.names = Names()
        self._terminal = terminal
        self._num_outer_steps = num_outer_steps
        self._committed_at = 0.0  # the last one

    def hears(self, event: Event) -> None:
        """The next event."""
        if line := self.line(event):
            self._terminal.say(f"{clock(event.time)}  {line}")

    def line(self, event: Event) -> str:
        """The next event as a sentence with names; "" for one that is not told."""
        if isinstance(event, Joined):
            self.names.learn(event.island, event.contributor)
        if isinstance(event, NOT_TOLD):
            return ""
        if not isinstance(event, Committed):
            return self.names.within(event.text)
        took = f", {duration(event.time - self._committed_at)}" if self._committed_at else ""
        self._committed_at = event.time
        names = sorted(map(self.names.of, event.participants))
        who = listed(names) if len(names) <= MAX_NAMED else f"{len(names)} islands"
        return (
            f"step {event.step + 1} of {self._num_outer_steps} committed by {who}: {loss_of(event.loss)}, "
            f"{human(event.tokens)} tokens{took}"
        )
