"""A process that is started again, by the same command, whenever it has died."""

import contextlib
import os
import time
from pathlib import Path

from agents.spaces import Sites
from atoll.run.processes import Child

BENCH = Path(__file__).parents[1]


class Supervised:
    """One command, started again after a pause whenever it has died; on one site."""

    def __init__(
        self, name: str, arguments: list[str], log: Path, lan: Sites | None, restart_seconds: float
    ) -> None:
        self.name = name
        self.starts: list[float] = []  # seconds since the epoch, as in events
        self._arguments, self._log, self._lan = arguments, log, lan
        self._restart_seconds = restart_seconds
        self._start_at: float | None = None
        log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        path = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH", "")]))
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        with self._lan.at(self.name) if self._lan else contextlib.nullcontext():
            self.starts.append(time.time())
            self.child = Child(self._arguments, log=self._log, environment=environment)
        self._start_at = None

    def repeat_with(self, argument: str) -> None:
        """From the next start on the command has this argument, too."""
        if argument not in self._arguments:
            self._arguments = [*self._arguments, argument]

    def tend(self) -> None:
        """Start it again, some seconds after its end."""
        if self.child.alive:
            return
        if self._start_at is None:
            self._start_at = time.monotonic() + self._restart_seconds
        elif time.monotonic() >= self._start_at:
            self.child.socket.close()
            self.start()

    @property
    def pid(self) -> int:
        return self.child.process.pid
