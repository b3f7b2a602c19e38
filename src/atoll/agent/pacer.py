"""When the next piece for another agent may leave: pieces are spread over the time that the plan gives them.

Pieces that leave as fast as TCP lets them fill the queues of links that others need just as much, and what a
full queue drops has to be sent again. So all that one agent sends another in a reduction is spread over the
planned time.

Pieces of one's own payload leave somewhat more often than those that one has reduced: what the others have to
reduce must be there early enough that only the way back is left at the end. They do not simply go first,
since either kind travels on connections of its own, whose TCP would begin slowly one after the other.
"""

import asyncio
from collections import deque

# For a while pieces are faster, or a link that is faster than it was thought would stay unknown: once TCP has
# got under way, and by no more than half of what the queue of a home router takes; then slower until that is
# empty again.
PROBE_FROM, PROBE_SECONDS, PROBE_GAIN = 0.2, 1.0, 1.15  # share of the planned time; seconds; times the rate
DRAIN_SECONDS, DRAIN_GAIN = 3.0, 0.95
# What has fallen behind makes good: one flow at up to so many times its rate, all together hardly faster than
# planned. Time in which the link was idle is gone, and what is sent for it now would only fill queues.
CATCH_UP, CATCH_UP_OF_ALL = 1.3, 1.02
SLACK_SECONDS = 0.005  # timers come late by a millisecond or two: what that holds up may leave at once
QUEUE_SECONDS = 0.2  # which a home router's queue takes: what is sent in less is not spread
REDUCED_PER_OWN = 2 / 3  # pieces that leave, while both kinds wait


class Uplink:
    """What all pacers of one agent share: how fast they may be together."""

    def __init__(self, num_pieces: int, seconds: float) -> None:
        self.num_pieces, self.seconds = num_pieces, seconds
        self._began: float | None = None
        self._interval_seconds = seconds / max(num_pieces, 1) / CATCH_UP_OF_ALL
        self.free_at = 0.0  # by the loop's clock

    def begin(self, now: float) -> float:
        """The planned time begins now, if it has not yet; when it has begun."""
        if self._began is None:
            self._began = self.free_at = now
        return self._began

    def gain(self, moment: float) -> float:
        """Times its rate everything is meant to be so fast."""
        assert self._began is not None
        past_seconds = moment - self._began - PROBE_FROM * self.seconds
        if 0 <= past_seconds < PROBE_SECONDS:
            return PROBE_GAIN
        return DRAIN_GAIN if 0 <= past_seconds < PROBE_SECONDS + DRAIN_SECONDS else 1.0

    def take(self, now: float) -> None:
        """A piece leaves now."""
        self.free_at = max(self.free_at, now - SLACK_SECONDS) + self._interval_seconds / self.gain(now)


class Pacer:
    """The moments at which one agent's pieces for another are due. Belongs to one event loop."""

    def __init__(self, num_pieces: int, uplink: Uplink, phase: float = 0.0) -> None:
        """`num_pieces` are to leave within the uplink's seconds; 0: as fast as may be.

        `phase`, from 0 to 1, is by which part of the time between two of them the first is late: so the
        pieces for several agents do not all leave at the same moments.
        """
        seconds = uplink.seconds
        self._interval_seconds = seconds / max(num_pieces, 1) if seconds > QUEUE_SECONDS else 0.0
        self._uplink = uplink
        self._phase = phase
        self._has_begun = False
        self._due = self._last = 0.0
        self._own, self._reduced = deque[asyncio.Future[None]](), deque[asyncio.Future[None]]()  # who waits
        self._owed = 0.0  # reduced pieces, for own ones that have left before them
        self._timer: asyncio.TimerHandle | None = None

    @property
    def per_second(self) -> float:
        """How many pieces are to leave in a second; 0: as many as can be."""
        return 1 / self._interval_seconds if self._interval_seconds else 0.0

    def begin(self) -> None:
        """The planned time begins now, though the first piece may come later; else it begins with that."""
        if not self._has_begun:
            self._has_begun = True
            began = self._uplink.begin(asyncio.get_running_loop().time())
            self._due = began + self._phase * self._interval_seconds
            self._last = began - self._interval_seconds

    async def turn(self, is_own: bool = False) -> None:
        """Wait until a piece may leave; `is_own`: it is of one's own payload."""
        if not self._interval_seconds:
            return
        self.begin()
        loop = asyncio.get_running_loop()
        if not self._own and not self._reduced and self._next_at <= loop.time():
            self._take(loop.time())
            return
        turn = loop.create_future()
        (self._own if is_own else self._reduced).append(turn)
        self._set_timer(loop)
        await turn  # one that is cancelled is passed over

    @property
    def _next_at(self) -> float:
        caught_up = self._last + self._interval_seconds / CATCH_UP
        return max(self._due, caught_up, self._uplink.free_at - SLACK_SECONDS)

    def _take(self, now: float) -> None:
        """A piece leaves now."""
        self._last = max(self._next_at, now - SLACK_SECONDS)
        self._due += self._interval_seconds / self._uplink.gain(self._due)
        self._uplink.take(now)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_at(self._next_at, self._give_turns, loop)

    def _give_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._own or self._reduced:
            if self._next_at > loop.time():
                self._set_timer(loop)
                return
            turn = self._whose_turn()
            if not turn.done():  # its task may have been cancelled
                self._take(loop.time())
                turn.set_result(None)

    def _whose_turn(self) -> asyncio.Future[None]:
        if not self._own or not self._reduced:
            return (self._own or self._reduced).popleft()
        if self._owed >= 1:
            self._owed -= 1
            return self._reduced.popleft()
        self._owed += REDUCED_PER_OWN
        return self._own.popleft()
