"""A host lets a stranger find out what the line between them carries: one at a time, and not too often."""

import asyncio
from typing import Any

from atoll.swarm import messages as m
from atoll.swarm.limits import Pace
from atoll.swarm.probe import send_filler, take_filler
from atoll.swarm.transport import Stream, TransportError, within

WAIT_SECONDS = 5.0  # for others, who are measured before
PER_SECOND, BURST = 0.2, 8  # in the long run: 0.4 MB a second, each way


class Probes:
    """Serves probes. Whoever's turn does not come soon is told so: joining does without it."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._pace = Pace(PER_SECOND, BURST)

    async def serve(self, stream: Stream[Any]) -> None:
        """Take the stranger's filler, tell what came, and send as much. Raises TransportError."""
        try:
            await within(WAIT_SECONDS, self._my_turn(), "a probe")
        except TransportError:
            await stream.send(m.TicketRefused("the host is measuring the lines of others just now"))
            return
        try:
            await stream.send(await take_filler(stream))
            await send_filler(stream)
        finally:
            self._turn.release()

    async def _my_turn(self) -> None:
        await self._pace.take()
        await self._turn.acquire()
