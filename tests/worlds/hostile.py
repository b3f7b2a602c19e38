"""An enrolled member that says what it likes, in a swarm of honest ones."""

import asyncio
import contextlib
from typing import Any

import msgspec
from worlds.network import FaultyTransport
from worlds.swarm import HOST, Swarm

import examples
from atoll.swarm import messages as m
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.records import Message
from atoll.swarm.services import CONTROL, Service
from atoll.swarm.transport import Stream, TransportError


class Hostile:
    """One member's lines. What the coordinator says is kept, and answered by nobody."""

    def __init__(self, swarm: Swarm, name: str) -> None:
        self.name = name
        self.heard: list[Message] = []
        self._swarm = swarm
        self._transport = FaultyTransport(swarm.network, name)
        self._streams: list[Stream[Any]] = []
        self._readers: list[asyncio.Task[None]] = []

    def hello(self, **changes: Any) -> m.Hello:
        """What an honest agent of this run would say at its start, with changes."""
        swarm = self._swarm
        plain = examples.hello(
            session=self.name,
            recipe_digest=swarm.recipe.digest(),
            self_test=swarm.rules.self_test,
            contributor=self.name,
            port=0,
            head_root=swarm.genesis_root,
        )
        return msgspec.structs.replace(plain, **changes)

    async def enter(self, reads: bool = True, **changes: Any) -> Stream[Any]:
        """A control line on which it has said Hello."""
        stream = await self.dial((HOST.for_members,), COORDINATOR, CONTROL)
        await stream.send(self.hello(**changes))
        if reads:
            self._readers.append(asyncio.create_task(self._read(stream)))
        return stream

    async def dial(self, addresses: Any, peer: str, service: Service[Any, Any]) -> Stream[Any]:
        stream = await self._transport.connect(addresses, peer, service)
        self._streams.append(stream)
        return stream

    async def _read(self, stream: Stream[Any]) -> None:
        with contextlib.suppress(TransportError):
            while True:
                message, _ = await stream.receive(1e6)
                self.heard.append(message)

    async def leave(self) -> None:
        for stream in self._streams:
            await stream.close()
        for reader in self._readers:
            reader.cancel()
        await self._transport.close()


async def honest(swarm: Swarm, names: str = "abcd") -> None:
    """Start the coordinator, a relay and honest islands, and wait until they commit together."""
    await swarm.start_coordinator()
    swarm.start("r", relay=True)
    for name in names:
        swarm.start(name, step_seconds=0.25)
    await swarm.until(lambda: len(swarm.ready()) == len(names) + 1, "all are ready")
    await swarm.until_step(swarm.head + 2)


async def steps_in(swarm: Swarm, seconds: float) -> int:
    """How many steps are committed in so many seconds from now."""
    before = swarm.head
    await asyncio.sleep(seconds)
    return swarm.head - before
