"""What is held against the thresholds of `events/alert.py`, once, by the coordinator that leads."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from atoll import events as e
from atoll.coordinator.admission import NOT_FINITE
from atoll.events import Event
from atoll.events.alert import MAX_ALERTS, THRESHOLDS, What

FORGOTTEN_SECONDS = 3600.0  # after which who is gone is not expected back
LOOK_SECONDS = 1.0
DISK_SECONDS = 30.0  # between two looks at the disk
MIN_USUAL_STEPS, MAX_USUAL_STEPS = 5, 50
MIN_SLOW_SECONDS = 5.0  # a step of less than that is slow for nobody
MIN_NORMS = 3  # of which a median says what is usual


@dataclass(kw_only=True)
class _Watched:
    """One island, as far as alerts need it."""

    worked: bool = False  # it was ready at some time: its silence is news
    ready: bool = False  # on this line
    silent_since: float | None = None
    num_missed: int = 0


class Alerts:
    """Hears what is reported, looks at the time, and gives the alerts that begin or are over.

    Times are seconds of the coordinator's clock.
    """

    def __init__(self, free_bytes: Callable[[], int | None]) -> None:
        """`free_bytes`: of the disk that the coordinator writes to; None where nobody can say."""
        self._free_bytes = free_bytes
        self._open: dict[tuple[What, str], e.Alert] = {}
        self._islands: dict[str, _Watched] = {}
        self._steps: deque[float] = deque(maxlen=MAX_USUAL_STEPS)  # seconds that the last ones took
        self._began: float | None = None  # the open step
        self._step = 0
        self._look_at = self._disk_at = 0.0
        self._finished = False

    def hear(self, event: Event, now: float) -> list[e.Alert]:
        """What an event begins or ends."""
        found: list[e.Alert] = []
        match event:
            case e.Joined():
                watched = self._of(event.island)
                watched.silent_since, watched.ready, watched.num_missed = None, False, 0
                self._end(found, event.island, "silent")
            case e.Ready():
                watched = self._of(event.island)
                watched.worked = watched.ready = event.trainer or watched.worked
            case e.Thawed():
                self._of(event.island).silent_since = None
                self._end(found, event.island, "silent")
            case e.Frozen():
                self._of(event.island).silent_since = now
            case e.Left():
                watched = self._of(event.island)
                watched.silent_since, watched.ready, watched.num_missed = now, False, 0
                self._end(found, event.island, "missed", "nan")
            case e.Refused() if event.what == "proposal" and event.reason.endswith(NOT_FINITE):
                self._begin(found, "nan", 1.0, event.island)
            case e.Committed():
                self._committed(found, event, now)
            case e.Finished():
                self._finished = True
                for what, island in list(self._open):
                    self._end(found, island, what)
            case _:
                pass
        return found

    def look(self, now: float) -> list[e.Alert]:
        """What has begun or ended by the time alone; at most once a second there is anything to do."""
        found: list[e.Alert] = []
        if now < self._look_at:
            return found
        self._look_at = now + LOOK_SECONDS
        if now >= self._disk_at:
            self._disk_at = now + DISK_SECONDS
            self._look_at_disk(found)
        if self._finished:
            return found
        for island, watched in self._islands.items():
            if watched.silent_since is None or not watched.worked:
                continue
            seconds = now - watched.silent_since
            if seconds >= FORGOTTEN_SECONDS:
                watched.worked = False
                self._end(found, island, "silent")
            elif seconds >= THRESHOLDS["silent"]:
                self._begin(found, "silent", seconds, island)
        if self._began is not None and len(self._steps) >= MIN_USUAL_STEPS:
            took, usual = now - self._began, median(self._steps)
            if took >= max(MIN_SLOW_SECONDS, THRESHOLDS["slow"] * usual):
                self._begin(found, "slow", took / usual if usual else THRESHOLDS["slow"])
        return found

    def forget(self, island: str) -> list[e.Alert]:
        """An island that was put out is not expected any more."""
        found: list[e.Alert] = []
        self._islands.pop(island, None)
        for what in THRESHOLDS:
            self._end(found, island, what)
        return found

    def _committed(self, found: list[e.Alert], event: e.Committed, now: float) -> None:
        self._end(found, "", "slow")
        if self._began is not None:
            self._steps.append(now - self._began)
        self._began, self._step = now, event.step + 1
        norms = {island: given.norm for island, given in event.participants.items() if given.norm is not None}
        usual = median(norms.values()) if len(norms) >= MIN_NORMS else 0.0
        for island in event.participants:
            self._of(island).num_missed = 0
            self._end(found, island, "missed", "nan")
            if usual and norms.get(island, 0.0) >= THRESHOLDS["norm"] * usual:
                self._begin(found, "norm", norms[island] / usual, island)
            else:
                self._end(found, island, "norm")
        for island, watched in self._islands.items():
            if watched.ready and watched.silent_since is None and island not in event.participants:
                watched.num_missed += 1
                if watched.num_missed >= THRESHOLDS["missed"]:
                    self._begin(found, "missed", watched.num_missed, island)

    def _look_at_disk(self, found: list[e.Alert]) -> None:
        free = self._free_bytes()
        if free is not None and free < THRESHOLDS["disk"]:
            self._begin(found, "disk", free)
        else:
            self._end(found, "", "disk")

    def _begin(self, found: list[e.Alert], what: What, value: float, island: str = "") -> None:
        if (what, island) in self._open or len(self._open) >= MAX_ALERTS:
            return
        alert = e.Alert(
            what=what, island=island, step=self._step, value=float(value), threshold=float(THRESHOLDS[what])
        )
        self._open[what, island] = alert
        found.append(alert)

    def _end(self, found: list[e.Alert], island: str, *whats: What) -> None:
        for what in whats:
            if self._open.pop((what, island), None) is not None:
                found.append(e.Alert(what=what, island=island, step=self._step, over=True))

    def _of(self, island: str) -> _Watched:
        return self._islands.setdefault(island, _Watched())
