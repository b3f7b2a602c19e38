"""The events file: one JSON object a line, appended by a coordinator, followed by whoever likes."""

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from atoll.events import Alert, Evaluated, Event, ReignBegan
from atoll.files import disk_error

VERSION = 1  # of the file's format: raise it with every change that a reader of before would misread
NUM_NOTABLE = 12
AlertKey = tuple[str, str]  # what, and the island


class EventLog:
    """Appends events to a file. Used by one coordinator at a time."""

    def __init__(self, path: Path, hear: Callable[[Event], None] = lambda event: None) -> None:
        """`hear` is given each event once it is written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._hear = hear
        self.notable: deque[Event] = deque(maxlen=NUM_NOTABLE)  # the last that were not routine
        self.evaluated: Evaluated | None = None  # the newest, of earlier coordinators too
        self.alerts: dict[AlertKey, Alert] = {}  # that are not over
        self.failure: Exception | None = None  # why an event could not be written
        self._path = path
        self._file = path.open("ab", buffering=0)
        if before := path.read_bytes():
            self.evaluated = newest_evaluated(EventReader(path).read()) if _EVALUATED in before else None
            if not before.endswith(b"\n"):
                os.write(self._file.fileno(), b"\n")  # ends a line that a crash cut off

    def write(self, event: Event) -> None:
        """Append an event; its time is now. One that cannot be written is lost, and `failure` says why."""
        event = msgspec.structs.replace(event, time=time.time())
        if not event.routine:
            self.notable.append(event)
        self.evaluated = event if isinstance(event, Evaluated) else self.evaluated
        if isinstance(event, Alert):
            _follow(self.alerts, event)
        line = {"version": VERSION, **msgspec.to_builtins(event), "text": event.text}
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            self.failure = disk_error(self._path, error)
        self._hear(event)

    def free_bytes(self) -> int | None:
        """How many bytes are free on its disk; None where the system does not say."""
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError:
            return None

    def close(self) -> None:
        self._file.close()


class EventReader:
    """Follows an events file. What cannot be read is skipped, counted, and told of in `complaint`."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Begin at byte `offset`, which must be the beginning of a line."""
        self.path = path
        self.num_torn = 0  # lines that are no JSON: a crash cut them off
        self.num_unknown = 0  # whole lines of another format, or of a kind that is not known here
        self.offset = offset  # so many bytes are read
        self._is_in_long_line = False

    def read(self, max_bytes: int = -1) -> list[Event]:
        """The events that came since the last call, oldest first; a line that is not whole yet waits.

        At most so many bytes are read at once, if `max_bytes` is given; a line that is longer is skipped.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(max_bytes)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == max_bytes:
            self.offset += len(data)
            self.num_torn += not self._is_in_long_line
            self._is_in_long_line = True
            return []
        self.offset += len(whole)
        if whole and self._is_in_long_line:  # it ends here
            whole, self._is_in_long_line = whole.split(b"\n", 1)[1], False
        events: list[Event] = []
        for line in whole.splitlines():
            try:
                events.append(_decoder.decode(line))
            except msgspec.ValidationError:
                self.num_unknown += 1
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.num_torn += 1
        return events

    @property
    def complaint(self) -> str:
        """What was skipped so far, as a sentence for people; "" if nothing was."""
        if not (self.num_torn or self.num_unknown):
            return ""
        return (
            f"{self.path}: skipped {self.num_torn} lines that a crash cut off, and {self.num_unknown} "
            f"that this atoll, which reads format {VERSION}, does not know; the atoll that wrote them does"
        )


def newest_evaluated(events: Iterable[Event]) -> Evaluated | None:
    """The last evaluation among events, oldest first; None if there is none."""
    found = [event for event in events if isinstance(event, Evaluated)]
    return found[-1] if found else None


def open_alerts(events: Iterable[Event]) -> list[Alert]:
    """The alerts among events, oldest first, that are not over; a new coordinator looks anew."""
    found: dict[AlertKey, Alert] = {}
    for event in events:
        if isinstance(event, ReignBegan):
            found.clear()
        elif isinstance(event, Alert):
            _follow(found, event)
    return list(found.values())


def _follow(alerts: dict[AlertKey, Alert], event: Alert) -> None:
    key = event.what, event.island
    if event.over:
        alerts.pop(key, None)
    else:
        alerts[key] = event


_EVALUATED = b'"kind":"evaluated"'  # a file without it need not be decoded for it
_decoder = msgspec.json.Decoder(Event)
