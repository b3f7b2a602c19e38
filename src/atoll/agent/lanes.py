"""How many connections bulk travels on between two agents, and that these are up before they are needed.

One TCP connection on a long way gives away the time in which it recovers from a lost packet; several lose one
at a time, and begin with several times as much under way. On a short way one is enough.
"""

import asyncio
import math
from collections.abc import Mapping

from atoll.swarm.address import Addresses
from atoll.swarm.messages import Ping
from atoll.swarm.services import PING
from atoll.swarm.transport import DIAL_SECONDS, Transport, TransportError

MIN_LANES, MAX_LANES = 4, 16  # of a pair on a long way
# That are under way on one of them: TCP keeps up so much where 0.1 % of packets are lost.
LANE_BYTES = 64 << 10
PIECES_A_LANE = 2  # at least: a small payload gains nothing by more lanes
WARM_SECONDS = 60.0  # after which an agent is dialled again before it is needed
MAX_WARMED = 16  # agents at a time: of more, most will own nothing, and each costs both ends a handshake
MAX_LANES_OF_ALL = 64  # that one agent opens
LONG_SECONDS = 0.005  # a round trip that is longer is worth more than one connection


class Lanes:
    """What one agent knows of the ways to others. A way that was never tried is taken to be short."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._round_trip_seconds: dict[str, float] = {}  # by agent
        self._warm_until: dict[str, float] = {}  # by agent, by the loop's clock
        self._used: dict[str, int] = {}  # by agent: how many lanes the newest reduction had

    def count(self, agent: str, num_agents: int, bytes_per_second: float, num_pieces: int) -> int:
        """How many lanes to use for so many pieces to an agent, at such a rate each way (0: the highest).

        `num_agents` are served at the same time.
        """
        round_trip_seconds = self._round_trip_seconds.get(agent, 0.0)
        if round_trip_seconds < LONG_SECONDS:
            return 1
        wanted = max(MIN_LANES, math.ceil(bytes_per_second * round_trip_seconds / LANE_BYTES))
        most = min(MAX_LANES, MAX_LANES_OF_ALL // max(num_agents, 1), num_pieces // PIECES_A_LANE)
        self._used[agent] = max(1, min(wanted, most))
        return self._used[agent]

    async def warm(self, agents: Mapping[str, Addresses], num_pieces: int) -> None:
        """Dial agents that will be needed soon, and learn how far they are. Who cannot be reached is left.

        They get as many lanes as the newest reduction had to them; before the first, the least of a long way,
        and no more than their part of `num_pieces`, the payload, will ask.
        """
        if len(agents) <= MAX_WARMED:
            most = max(1, num_pieces // max(len(agents), 1) // PIECES_A_LANE)
            await asyncio.gather(*(self._try(agent, agents[agent], most) for agent in sorted(agents)))

    async def _try(self, agent: str, addresses: Addresses, most: int) -> None:
        clock, known = asyncio.get_running_loop().time, self._round_trip_seconds
        if clock() < self._warm_until.get(agent, 0.0):
            return
        try:
            await self._ping(agent, addresses, 0)
            seconds = await self._ping(agent, addresses, 0)  # on a line that is up
            # The least that was seen: a busy machine answers late, and is no further away for it.
            known[agent] = min(seconds, known.get(agent, seconds))
            first = 1 if known[agent] < LONG_SECONDS else MIN_LANES
            lanes = range(1, min(most, self._used.get(agent, first)))
            await asyncio.gather(*(self._ping(agent, addresses, lane) for lane in lanes))
            self._warm_until[agent] = clock() + WARM_SECONDS
        except TransportError:
            known.pop(agent, None)

    async def _ping(self, agent: str, addresses: Addresses, lane: int) -> float:
        """Seconds of a question and its answer."""
        clock = asyncio.get_running_loop().time
        began = clock()
        stream = await self._transport.connect(addresses, agent, PING, DIAL_SECONDS, lane)
        try:
            await stream.send(Ping())
            await stream.receive(DIAL_SECONDS)
        finally:
            await stream.close()
        return clock() - began
