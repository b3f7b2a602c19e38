"""The memory transport with what a fault needs: a look at every frame before it leaves, frozen members, dead
edges.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.records import Message
from atoll.swarm.services import Service
from atoll.swarm.transport import Handler, Stream, TransportError, within

Frame = tuple[Message, memoryview]
Watch = Callable[[str, str, Message], None]


class Weather(Network):
    """A network on which members freeze and edges die, and all of it passes.

    A frozen member neither sends nor receives, nor lets a wait of its own end, until it thaws. Over a silent
    edge nothing comes and no new stream opens, while old ones stay: a pulled cable. A broken one ends its
    streams at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[Watch] = []  # see every message just before it leaves
        self._still: dict[str | frozenset[str], asyncio.Event] = {}  # frozen members, silent edges

    def freeze(self, member: str) -> None:
        self._still[member] = asyncio.Event()

    def thaw(self, member: str) -> None:
        self._still.pop(member).set()

    def silence(self, left: str, right: str) -> None:
        self._still[frozenset((left, right))] = asyncio.Event()

    def mend_edge(self, left: str, right: str) -> None:
        """Undo `silence` and `cut_edge`; what was sent into silence arrives now."""
        self.cut.discard(frozenset((left, right)))
        if still := self._still.pop(frozenset((left, right)), None):
            still.set()

    def watch(self, sender: str, receiver: str, message: Message) -> None:
        for watch in list(self.watches):
            watch(sender, receiver, message)

    async def moves(self, what: str | frozenset[str]) -> None:
        """Until this member is not frozen, or this edge not silent."""
        while still := self._still.get(what):
            await still.wait()


class WeatherTransport(MemoryTransport):
    """One member's access to a `Weather`."""

    def __init__(self, network: Weather, island: str) -> None:
        super().__init__(network, island)
        self._weather = network

    async def connect(
        self, address: str, peer: str, service: Service[Any, Any], seconds: float = 10.0
    ) -> Stream:
        await self._weather.moves(self.island)
        for still in (frozenset((self.island, peer)), peer):
            await within(seconds, self._weather.moves(still), peer)
        return _Stream(await super().connect(address, peer, service, seconds), self._weather, self.island)

    async def serve(self, host: str, port: int, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        return await super().serve(
            host, port, {service: self._watched(handler) for service, handler in handlers.items()}
        )

    def _watched(self, handler: Handler) -> Handler:
        async def serve(stream: Stream) -> None:
            await handler(_Stream(stream, self._weather, self.island))

        return serve


class _Stream:
    """A member's end of a call."""

    def __init__(self, stream: Stream, weather: Weather, me: str) -> None:
        self.peer, self.peer_host = stream.peer, stream.peer_host
        self._stream, self._weather, self._me = stream, weather, me

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        await self._weather.moves(self._me)
        self._weather.watch(self._me, self.peer, message)
        await self._weather.moves(self._me)
        await self._stream.send(message, bulk)

    async def receive(self, seconds: float) -> Frame:
        return await self._then_moves(self._me, within(seconds, self._arrival(seconds), self.peer))

    async def _arrival(self, seconds: float) -> Frame:
        """Through silence not even an end is heard."""
        return await self._then_moves(frozenset((self._me, self.peer)), self._stream.receive(seconds))

    async def _then_moves(self, what: str | frozenset[str], arrival: Awaitable[Frame]) -> Frame:
        """What came, or its failure, once this moves; a cancellation does not wait."""
        try:
            frame = await arrival
        except TransportError:
            await self._weather.moves(what)
            raise
        await self._weather.moves(what)
        return frame

    async def close(self) -> None:
        await self._stream.close()
