"""`atoll status --watch`: the status, again and again.

A terminal shows one picture, in place of the last, and has its screen back at the end. A pipe or a file gets
the whole status once more whenever what matters of it has changed.
"""

import time

from rich.console import Group
from rich.live import Live
from rich.text import Text

from atoll.status import RunStatus
from atoll.terminal.figures import clock, duration
from atoll.terminal.status import status_table
from atoll.terminal.terminal import Terminal
from atoll.words import visible


class Watch:
    """Shows one status after the other."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._live: Live | None = None
        self._newest: RunStatus | None = None

    def __enter__(self) -> "Watch":
        if self._terminal.is_live:
            self._live = Live(console=self._terminal.console, screen=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_over(self) -> bool:
        """Whether nobody need look again: a pipe has had the end of the run."""
        return self._live is None and self._newest is not None and self._newest.finished

    def show(self, status: RunStatus) -> None:
        """The newest status."""
        has_changed = self._newest is None or _essence(status) != _essence(self._newest)
        self._newest = status
        if self._live is not None:
            self._draw(f"{clock(status.time)}, q ends this")
        elif has_changed:
            console = self._terminal.console
            console.print(status_table(status, console.width, time.time()), "")

    def lost(self, reason: str) -> None:
        """There is no status now: the last one stays, and how old it is."""
        if self._live is not None and self._newest is not None:
            age = duration(max(0.0, time.time() - self._newest.time))
            self._draw(f"no answer for {age}: {reason}; q ends this")

    def _draw(self, below: str) -> None:
        assert self._live is not None
        assert self._newest is not None
        table = status_table(self._newest, self._terminal.console.width, time.time())
        self._live.update(Group(Text(visible(below), style="dim"), table), refresh=True)


def _essence(status: RunStatus) -> tuple[object, ...]:
    """What of a status is worth another page: figures move all the time."""
    islands = tuple((i.island, i.present, i.ready, i.evicted) for i in status.islands)
    return status.hosted, status.term, status.step, status.finished, status.stall, islands
