"""Following an events file, and taking what it tells to sinks."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.events import Committed, Evaluated, ReignBegan
from atoll.events.log import EventReader
from atoll.sinks.figures import Figures
from atoll.sinks.sink import Sink

LOOK_SECONDS = 1.0


class Follower:
    """Reads a run's events from the first on. It cannot slow the run: only the file is between them."""

    def __init__(self, path: Path) -> None:
        self._reader = EventReader(path)
        self._waiting = self._reader.read()
        self.figures = Figures()

    @property
    def run_id(self) -> str:
        """The run's id, as far as the file tells it by now."""
        heard = (event.run_id for event in self._waiting if isinstance(event, ReignBegan))
        return self.figures.run_id or next(heard, "run")

    @property
    def complaint(self) -> str:
        """What of the file could not be read, as a sentence; "" if nothing."""
        return self._reader.complaint

    def step(self, sinks: Sequence[Sink]) -> int:
        """Take to the sinks what has come since the last call; how many events that were."""
        events = self._waiting + self._reader.read()
        self._waiting = []
        for event in events:
            changed = self.figures.hear(event)
            notable = isinstance(event, Committed | Evaluated)
            for sink in sinks:
                sink.take(changed, self.figures.committed_steps, event.time, notable)
        return len(events)

    def run(self, sinks: Sequence[Sink], pause: Callable[[float], None] = time.sleep) -> None:
        """Follow for ever."""
        while True:
            self.step(sinks)
            pause(LOOK_SECONDS)
