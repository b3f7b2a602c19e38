"""Attacks of a member "h" that has only lines: it does what no agent does."""

import asyncio
import contextlib
from typing import Any

from worlds.attack import Attack
from worlds.hostile import Hostile
from worlds.swarm import Swarm

from atoll.swarm import messages as m
from atoll.swarm.address import Address
from atoll.swarm.records import Plan
from atoll.swarm.services import FETCH, REDUCE
from atoll.swarm.transport import TransportError


class Claims(Attack):
    """It says again and again that it knows what the coordinator does not."""

    is_agent = is_left_out = False

    def __init__(self, **claims: Any) -> None:
        self._claims = claims

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        for _ in range(20):
            await self._liar.enter(**self._claims)

    async def end(self) -> None:
        await self._liar.leave()


class _Flooding(Attack):
    """What it does goes on in a task."""

    is_agent = is_left_out = False
    _liar: Hostile
    _flooding: asyncio.Task[None]

    async def end(self) -> None:
        self._flooding.cancel()
        await asyncio.gather(self._flooding, return_exceptions=True)
        await self._liar.leave()


class Floods(_Flooding):
    """It sends as fast as it is read, and reads nothing."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.num_sent = 0

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        stream = await self._liar.enter(reads=False)

        async def flood() -> None:
            while True:
                for message in self._messages:
                    await stream.send(message)
                    self.num_sent += 1

        self._flooding = asyncio.create_task(flood())


class Hoards(Attack):
    """It opens streams to everybody, asks for chunks, and reads nothing."""

    is_agent = is_left_out = False

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        for port in range(200):
            await self._liar.enter(reads=False, port=port + 1, addresses=(Address("memory", port + 1),))
        for name in "abcd":
            if name in swarm.agents:
                addresses = swarm.coordinator.protocol.members[name].addresses
                for _ in range(50):
                    await (await self._liar.dial(addresses, name, FETCH)).send(m.FetchChunk(0))
                    opened = await self._liar.dial(addresses, name, REDUCE)
                    await opened.send(m.ReduceOpen(10**6, 1, 0), bytes(4096))

    async def end(self) -> None:
        await self._liar.leave()


class Oversized(_Flooding):
    """It sends what no field may be, again and again."""

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        self._flooding = asyncio.create_task(self._flood())

    async def _flood(self) -> None:
        large = m.Reduced(step=0, number=1, slice=0, digest=bytes(3 << 20), squared_norms=())
        wide = m.Beat(step=2**62, inner_step=2**62, note="x" * 100_000)
        long = m.Fault(step=0, number=1, peer="y" * 99_999, kind="lost", text="")
        while True:
            for message in (large, wide, long):
                with contextlib.suppress(TransportError):
                    await (await self._liar.enter(reads=False)).send(message)
                await asyncio.sleep(0.05)


class HasPlans(_Flooding):
    """A member that takes plans, beats as if it trained on them, and never proposes."""

    lost_seconds = 7.0

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        stream = await self._liar.enter()
        self._flooding = asyncio.create_task(self._beat(stream, swarm))

    async def _beat(self, stream: Any, swarm: Swarm) -> None:
        planned, done = -1, 0
        while True:
            head, root = swarm.head, swarm.coordinator.protocol.head_root
            done = (done + 1) % 4
            if planned < head:
                await stream.send(m.Ready(step=head, root=root, loaded=root))
            planned = max((plan.step for plan in self._liar.heard if isinstance(plan, Plan)), default=-1)
            await stream.send(m.Beat(step=head, inner_step=done))
            await asyncio.sleep(0.3)


class StaysAfterEviction(Attack):
    """It is evicted, and goes on to accuse, and to ask peers for state, as if it were not."""

    is_agent = is_left_out = False

    async def begin(self, swarm: Swarm) -> None:
        self._liar = Hostile(swarm, "h")
        control = await self._liar.enter(reads=False)
        swarm.store.evicted = lambda: ("h",)
        swarm.coordinator.tell("h", m.Evicted("for a test"))
        swarm.coordinator.tell_revoked()
        addresses = swarm.coordinator.protocol.members["a"].addresses

        async def go_on() -> None:
            while True:
                fault = m.Fault(step=swarm.head, number=1, peer="a", kind="unreachable", text="still here")
                with contextlib.suppress(TransportError):
                    await control.send(fault)
                    await (await self._liar.dial(addresses, "a", FETCH)).send(m.FetchChunk(0))
                await asyncio.sleep(0.05)

        self._going_on = asyncio.create_task(go_on())

    async def end(self) -> None:
        self._going_on.cancel()
        await asyncio.gather(self._going_on, return_exceptions=True)
        await self._liar.leave()
