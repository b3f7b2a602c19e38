"""What happened, in words: events as JSON lines, in a file of their own, outside the commit database."""

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

ROUTINE = {"enrolled", "ready", "attempt", "committed"}
NUM_NOTABLE = 12


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened. `text` is a sentence for people; `facts` the same for programs."""

    time: float  # seconds since the epoch
    kind: str
    text: str
    island: str = ""
    step: int = -1
    facts: dict[str, Any] = {}


class EventLog:
    """Appends events to `path`, one JSON object a line; a torn last line (a crash while writing) is
    skipped.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.notable: deque[Event] = deque(maxlen=NUM_NOTABLE)  # the last that were not routine
        self._file = path.open("ab", buffering=0)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            os.write(self._file.fileno(), b"\n")

    def write(self, kind: str, text: str, *, island: str = "", step: int = -1, **facts: Any) -> None:
        event = Event(time.time(), kind, text, island, step, facts)
        if kind not in ROUTINE:
            self.notable.append(event)
        self._file.write(msgspec.json.encode(event) + b"\n")

    def close(self) -> None:
        self._file.close()


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events after byte `offset`, and the offset to go on from."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    for line in whole.splitlines():
        try:
            events.append(msgspec.json.decode(line, type=Event))
        except msgspec.DecodeError:
            continue  # a torn line
    return events, offset + len(whole)
