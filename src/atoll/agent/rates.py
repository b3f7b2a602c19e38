"""What this agent's link carries, learned from what crosses it anyway.

While an agent reduces, recovers or gives, what crossed its link is looked at a few times a second. The most
that crossed within a window is what the link carries at least. When a reduction ends, its best windows move
the estimate: at once where they are faster; also where the reduction took longer than planned, and even the
best windows have carried less than the plan asked of this link. Otherwise slowly, as a link that had little
to carry, or an agent that waited for others, has shown nothing; and nothing is learned of slowness where the
machine was so busy that timers were late. A reduction of few bytes teaches nothing: its time is spent on
handshakes and round trips, and it needs no plan.
"""

import asyncio
import contextlib
import heapq
import math
import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import msgspec

from atoll.agent.pacer import PROBE_FROM, PROBE_GAIN
from atoll.files import write_unsynced
from atoll.metrics import Rates
from atoll.swarm.sockets import Crossed

FILE = "links.json"
LOOK_SECONDS = 0.25
LOOK_COST = 0.02  # of the time, at most: an agent with many connections looks less often
WINDOW_SECONDS = 2.0  # shorter ones would take what a lost packet has held back for the link's own speed
NUM_BEST = 3
MIN_BYTES = 16 << 10  # in a window: less says nothing
LEAST_BYTES = 4 << 20  # each way in a reduction: fewer say nothing
ERR_LOW = 0.95  # times the best windows: what they show where nothing was planned
FORGET = 0.97  # times the estimate: what is left of it after a step that did not need the whole link
NO_CAPS = Rates()
LATE = 1.2  # times the planned seconds: a reduction that took longer was held up by some link
ASKED_SHARE = 0.9  # of the planned rate: a link whose best windows carried less is that link
# Where there was a plan, what crosses while pacers are faster is what the link carries, from when that shows.
SHOWN_AFTER_SECONDS, SHOWN_SECONDS = 0.35, 0.7
# A pacer is faster for a while (`pacer.py`). A link that carries so much more than was known, times the
# estimate, carries more than it was asked; how much more is found out faster by asking for GROWTH of it.
FASTER, GROWTH = 1.09, 1.3
# Times what pacers let pass while they are faster: more than that was held up before, and came at once.
BURST = 1.05
STARVED_SECONDS = 0.05  # by which timers are late, on average, where the processor is the limit


class _Window:
    """Bytes that crossed in one direction, and the most per second that did within WINDOW_SECONDS.

    A burst out of a buffer is in two windows, since these overlap by half: so the third best one counts.
    """

    def __init__(self) -> None:
        self._best: list[float] = []
        self._seen: deque[tuple[float, int]] = deque()
        self._looks: list[tuple[float, int]] = []  # of this reduction

    def add(self, now: float, total: int) -> None:
        self._looks.append((now, total))
        self._seen.append((now, total))
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()
        began, before = self._seen[0]
        seconds = now - began
        if seconds >= WINDOW_SECONDS and total - before >= MIN_BYTES:
            self._best = heapq.nlargest(NUM_BEST, (*self._best, (total - before) / seconds))

    @property
    def best(self) -> float:
        return min(self._best, default=0.0)

    def between(self, begin: float, end: float) -> float:
        """Bytes per second between two moments since `forget`; 0 where too few looks were around them."""
        before, after = self._total_at(begin, end - begin), self._total_at(end, end - begin)
        if before is None or after is None or after - before < MIN_BYTES:
            return 0.0
        return (after - before) / (end - begin)

    def _total_at(self, moment: float, gap_seconds: float) -> float | None:
        """Bytes that had crossed by then, read between two looks that are no further apart than that."""
        number = bisect_left(self._looks, moment, key=lambda look: look[0])
        if number == len(self._looks):
            return None
        (after_at, after), (before_at, before) = self._looks[number], self._looks[max(0, number - 1)]
        if after_at == moment:
            return after
        if before_at > moment or after_at - before_at > gap_seconds:
            return None
        return before + (after - before) * (moment - before_at) / (after_at - before_at)

    def forget(self) -> None:
        """From now on only what crosses from now on counts."""
        self._best, self._looks = [], []
        while len(self._seen) > 1:
            self._seen.popleft()


class LinkRates:
    """One agent's estimates; they survive its process."""

    def __init__(
        self, directory: Path, look: Callable[[], Mapping[int, Crossed]], caps: Rates = NO_CAPS
    ) -> None:
        """`look` says what has crossed by connection. `caps`: what people want to be used at most; 0: all."""
        self._path = directory / FILE
        self._caps = caps
        self._look = look
        self._learned = kept_rates(directory)
        self._counted: Mapping[int, Crossed] = {}
        self._sent = self._received = 0
        self._up, self._down = _Window(), _Window()
        self._delays_seconds: list[float] = []  # of this reduction's timers
        self._began_at = 0.0  # by the loop's clock

    @property
    def known(self) -> Rates:
        """What the swarm may rely on."""
        up, down = self._learned.up_bytes_per_second, self._learned.down_bytes_per_second
        cap_up, cap_down = self._caps.up_bytes_per_second, self._caps.down_bytes_per_second
        return Rates(
            up_bytes_per_second=min(up, cap_up or up), down_bytes_per_second=min(down, cap_down or down)
        )

    @property
    def crossed(self) -> Crossed:
        """Bytes that have crossed the link since this process began."""
        return Crossed(self._sent, self._received)

    @contextlib.asynccontextmanager
    async def reduction(self, planned_seconds: float, planned_bytes: float) -> AsyncGenerator[None]:
        """Inside the block a reduction runs; what crosses the link meanwhile is what is learned.

        `planned_bytes` are to cross each way in the planned seconds; 0 seconds: there was no plan. One that
        is broken off shows a link that is faster than it was thought, or slower, if that is why it lasted.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        self.look(began)
        self.began(began)
        watching = asyncio.create_task(self._watch())
        is_whole = False
        try:
            yield
            is_whole = True
        finally:
            watching.cancel()
            self.look(clock())
            self.ended(planned_seconds, clock() - began, planned_bytes, is_whole)

    async def _watch(self) -> None:
        clock, cost = asyncio.get_running_loop().time, 0.0
        while True:
            due = clock() + max(LOOK_SECONDS, cost / LOOK_COST)
            await asyncio.sleep(due - clock())
            began = clock()
            self.look(began, began - due)
            cost = clock() - began

    def look(self, now: float, delay_seconds: float = 0.0) -> None:
        """Count what has crossed since the last look, which comes later than it should by so much."""
        self._delays_seconds.append(delay_seconds)
        connections = self._look()
        for inode, counts in connections.items():
            before = self._counted.get(inode, Crossed(0, 0))
            self._sent += max(0, counts.sent - before.sent)
            self._received += max(0, counts.received - before.received)
        self._counted = connections
        self._up.add(now, self._sent)
        self._down.add(now, self._received)

    def began(self, now: float) -> None:
        """A reduction begins: what crosses now counts for it."""
        self._began_at = now
        self._up.forget()
        self._down.forget()
        self._delays_seconds = []

    def ended(
        self, planned_seconds: float, seconds: float, planned_bytes: float, is_whole: bool = True
    ) -> None:
        """A reduction has ended after so long; not `is_whole`: it was broken off."""
        if planned_bytes < LEAST_BYTES:
            return
        is_starved = statistics.fmean(self._delays_seconds or [0.0]) > STARVED_SECONDS
        is_late = seconds > LATE * planned_seconds if planned_seconds else is_whole
        planned_rate = planned_bytes / planned_seconds if planned_seconds else math.inf
        # What a link must have carried not to be the one that was slow; without a plan nobody knows.
        asked = ASKED_SHARE * planned_rate

        def moved(estimate: float, seen: float) -> float:
            if planned_seconds and estimate and seen > FASTER * estimate:
                is_burst = seen > BURST * PROBE_GAIN * max(estimate, planned_rate)
                return estimate if is_burst else GROWTH * seen
            if not seen or (is_starved and seen < estimate):
                return estimate
            if not estimate and (is_starved or (seen < asked and not is_late)):
                return 0.0  # less was asked of it than it may carry
            if is_late and seen < asked:
                return seen
            return max(seen, FORGET * estimate if is_whole else estimate)

        def seen(window: _Window) -> float:
            if not planned_seconds:
                return ERR_LOW * (window.best or window.between(self._began_at, self._began_at + seconds))
            begin = self._began_at + PROBE_FROM * planned_seconds + SHOWN_AFTER_SECONDS
            shown = window.between(begin, begin + SHOWN_SECONDS)
            return max(shown, window.best) if is_late else shown

        learned = self._learned
        self._learned = Rates(
            up_bytes_per_second=moved(learned.up_bytes_per_second, seen(self._up)),
            down_bytes_per_second=moved(learned.down_bytes_per_second, seen(self._down)),
        )
        if self._learned != learned:
            write_unsynced(self._path, msgspec.json.encode(self._learned))


def kept_rates(directory: Path) -> Rates:
    """What an earlier process of an island has learned; nothing where that is damaged or not there."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Rates)
    return Rates()
