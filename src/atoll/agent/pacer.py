"""When the next piece of a flow may leave: a flow is spread over the time that the plan gives it.

Flows that leave as fast as TCP lets them fill the queues of links that others need just as much, and what a
full queue drops has to be sent again. So each flow of a reduction is spread over the planned time.
"""

import asyncio

PROBE_SECONDS, PROBE_GAIN = 1.0, 1.25  # at first a flow is faster: or a link that is faster stays unknown
CATCH_UP = 1.3  # times its rate is the most that a flow makes good with, which has fallen behind


class Pacer:
    """The moments at which the pieces of one flow are due. Belongs to one event loop."""

    def __init__(self, num_pieces: int, seconds: float) -> None:
        """`num_pieces` are to leave within `seconds`; 0: as fast as may be."""
        self._interval_seconds = seconds / max(num_pieces, 1)
        self._began: float | None = None
        self._due = self._last = 0.0

    def begin(self) -> None:
        """The flow's time begins now, though its first piece may come later; without this, with the first."""
        if self._began is None:
            self._began = self._due = asyncio.get_running_loop().time()
            self._last = self._began - self._interval_seconds

    async def turn(self) -> None:
        """Wait until the next piece is due."""
        if not self._interval_seconds:
            return
        self.begin()
        assert self._began is not None
        now = asyncio.get_running_loop().time()
        at = max(self._due, self._last + self._interval_seconds / CATCH_UP)
        probes = self._due < self._began + PROBE_SECONDS
        self._due += self._interval_seconds / (PROBE_GAIN if probes else 1.0)
        self._last = max(at, now)
        if at > now:
            await asyncio.sleep(at - now)
