"""What an island is doing, and what its seconds went into: the figures of its beats."""

import asyncio
from collections import deque

import msgspec

from atoll.metrics import Metrics
from atoll.swarm import messages as m
from atoll.words import one_line

MAX_BEATS = 64  # unanswered ones that are remembered: a line that is silent for so long is given up before


class Accounts:
    """Kept by one agent, by the clock of its event loop."""

    def __init__(self) -> None:
        self.note = "starting the agent"  # what the agent is doing, for people
        self._progress = m.Progress(-1, 0)  # the trainer's newest
        self._measured = Metrics()  # by the trainer; the seconds are ours to fill in
        self._compute_seconds = 0.0
        self._communicate_seconds = 0.0
        self._wait_seconds = 0.0
        self._proposed_at: float | None = None  # None: no proposal waits for its commit
        self._beats: deque[float] = deque(maxlen=MAX_BEATS)  # when those left that are not answered yet
        self._longest_beat_seconds = 0.0

    def say(self, text: str) -> None:
        """Note for people what the agent is doing."""
        self.note = one_line(text)

    def trained(self, progress: m.Progress) -> None:
        """The trainer has done another inner step."""
        self._progress, self._measured = progress, progress.metrics
        self.note = "training"

    def proposed(self, done: m.Proposed) -> None:
        """The inner steps are over; from now until the commit the island communicates or waits."""
        self._measured = done.metrics
        self._compute_seconds += done.compute_seconds
        self._proposed_at = now()

    def communicated(self, since: float) -> None:
        """What has passed since then was encoding or reducing, and so is no part of the waiting."""
        seconds = now() - since
        self._communicate_seconds += seconds
        self._wait_seconds -= seconds

    def committed(self) -> None:
        """The step is committed: whatever else has passed since the proposal was waiting."""
        if self._proposed_at is not None:
            self._wait_seconds += now() - self._proposed_at
            self._proposed_at = None

    def line_changed(self) -> None:
        """The line to the coordinator is new, or is down: what was on its way is not answered any more."""
        self._beats.clear()

    def beat_left(self) -> None:
        """A heartbeat is handed to the line."""
        self._beats.append(now())

    def beat_answered(self) -> None:
        """The oldest heartbeat that was on its way has been heard."""
        if self._beats:
            self._longest_beat_seconds = max(self._longest_beat_seconds, now() - self._beats.popleft())

    def longest_beat_seconds(self) -> float:
        """The longest round trip of a heartbeat since this was asked last; 0 if none has come back."""
        longest, self._longest_beat_seconds = self._longest_beat_seconds, 0.0
        return longest

    @property
    def metrics(self) -> Metrics:
        """What this island measures, as it stands now."""
        return msgspec.structs.replace(
            self._measured,
            compute_seconds=self._compute_seconds,
            communicate_seconds=self._communicate_seconds,
            wait_seconds=self._wait_seconds,
        )

    def beat(self, sent_bytes: int, attempt: int, num_pieces: int) -> m.Beat:
        """All of it, for the coordinator; `num_pieces` of the update of that attempt are here."""
        return m.Beat(
            step=self._progress.step,
            inner_step=self._progress.inner_step,
            metrics=self.metrics,
            sent_bytes=sent_bytes,
            note=self.note,
            attempt=attempt,
            num_pieces=num_pieces,
        )


def now() -> float:
    """Seconds by the event loop's clock."""
    return asyncio.get_running_loop().time()
