"""A verb of atoll as a child process: what a person would type, with its output in a file.

No such child has a deadline for the whole of its work, which may take days. It must show that it gets on:
something among its files has to change from time to time.
"""

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from atoll.run.processes import Child, last_words
from atoll.terminal.figures import duration

# More than an outer step of a large model takes, in which a trainer may write nothing.
QUIET_SECONDS = 3 * 3600.0
LOOK_SECONDS = 10.0  # between two looks at files
POLL_SECONDS = 0.3


class Failed(Exception):
    """A verb did not do what it was asked for; the sentence says why."""


class Stopped(Exception):
    """Whoever asked for the work does not want it any more."""


class Quiet:
    """Watches whether anything still changes in some places, each a file or a directory."""

    def __init__(self, *places: Path) -> None:
        self._places = places
        self._seen: tuple[int, int] = (0, 0)
        self._changed = self._looked = time.monotonic()

    def check(self, what: str) -> None:
        """Raises Failed once nothing has changed for QUIET_SECONDS. `what`: who should have changed it."""
        now = time.monotonic()
        if now - self._looked < min(LOOK_SECONDS, QUIET_SECONDS / 2):
            return
        self._looked = now
        files = list(self._files())
        seen = len(files), max(files, default=0)
        if seen != self._seen:
            self._seen, self._changed = seen, now
        elif now - self._changed >= QUIET_SECONDS:
            where = ", ".join(str(place) for place in self._places)
            raise Failed(f"{what} is stuck: nothing in {where} has changed for {duration(QUIET_SECONDS)}")

    def _files(self) -> Iterator[int]:
        """When each file was changed last."""
        for place in self._places:
            for path in place.rglob("*") if place.is_dir() else [place]:
                try:
                    yield path.stat().st_mtime_ns
                except OSError:  # removed meanwhile
                    continue


def atoll(
    *words: str,
    log: Path,
    output: Path | None = None,
    watch: Path | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run a verb to its end. Its messages are appended to `log`; `output`: where what it prints goes, alone.

    `watch`: the directory in which it works, where that is not the log's. Raises Failed for an exit status
    other than 0, and where it is stuck; Stopped once `stop` is set. However this ends, the child does too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    quiet = Quiet(watch or log.parent)
    child = Child(["atoll", *words], log=log, output=output)
    try:
        while (status := _waited(child)) is None:
            if stop is not None and stop.is_set():
                raise Stopped
            quiet.check(f"atoll {words[0]}")
    finally:
        child.stop()
    if status:
        raise Failed(f"atoll {words[0]} ended with status {status}; {last_words(child)}")


def _waited(child: Child) -> int | None:
    """The child's exit status; None where it still works after a moment."""
    try:
        return child.process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return None
