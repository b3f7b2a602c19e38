"""What `atoll join --relay` says: each commit, and whatever keeps the run from the next one."""

from typing import Any

from atoll.terminal.figures import clock
from atoll.terminal.news import Kind, News, situation, working
from atoll.terminal.terminal import Terminal


class Relay:
    """Hears the agent's signs of life."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._news = News()
        self._step = -1  # the open one, as last told
        self._num_islands = -1

    def hears(self, pulse: Any, now: float) -> None:
        """A sign of life (`swarm.messages.Pulse`), at a time in seconds since the epoch."""
        seen, overview = situation(pulse.lost, pulse.note, pulse.overview), pulse.overview
        line = self._news.hear(seen)
        if overview is not None and seen.kind not in (Kind.LOST, Kind.FINISHED):
            if not line and -1 < self._step < overview.step:
                line = f"committed: {working(overview)}"
            elif not line and overview.num_islands != self._num_islands:
                line = seen.text
            self._step, self._num_islands = overview.step, overview.num_islands
        if line:
            self._terminal.say(f"{clock(now)}  {line}")
        self._terminal.busy(f"{seen.text}; {pulse.note}" if seen.kind is Kind.WORKING else seen.text)
