"""The memory transport with faults: every message can be watched, members freeze, connections die."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from atoll.swarm.address import Address
from atoll.swarm.memory_transport import MemoryTransport, Network
from atoll.swarm.records import Message
from atoll.swarm.services import Service
from atoll.swarm.transport import Handler, Stream, TransportError, within

Frame = tuple[Message, memoryview]
Watch = Callable[[str, str, Message], None]  # called with (sender, receiver, message)


class FaultyNetwork(Network):
    """A network on which members freeze and edges die, and recover. An edge is a pair of members.

    A frozen member neither sends nor receives until it thaws, and its own timeouts do not end before. Over a
    silent edge nothing arrives and no new stream opens, but old streams stay open, as with a pulled cable. A
    cut edge ends its streams at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watches: list[Watch] = []  # each sees every message just before it leaves
        self._halted: dict[str | frozenset[str], asyncio.Event] = {}  # frozen members and silent edges

    def freeze(self, member: str) -> None:
        self._halted[member] = asyncio.Event()

    def thaw(self, member: str) -> None:
        self._halted.pop(member).set()

    def silence(self, left: str, right: str) -> None:
        self._halted[frozenset((left, right))] = asyncio.Event()

    def mend_edge(self, left: str, right: str) -> None:
        """Undo `silence` and `cut_edge`; what was sent over a silent edge arrives now."""
        self.cut.discard(frozenset((left, right)))
        if recovered := self._halted.pop(frozenset((left, right)), None):
            recovered.set()

    def watch(self, sender: str, receiver: str, message: Message) -> None:
        """Show a message that is about to leave to all watches."""
        for watch in list(self.watches):
            watch(sender, receiver, message)

    async def until_moving(self, what: str | frozenset[str]) -> None:
        """Wait until a member is not frozen, or an edge not silent."""
        while recovered := self._halted.get(what):
            await recovered.wait()


class FaultyTransport(MemoryTransport):
    """One member's access to a `FaultyNetwork`."""

    def __init__(self, network: FaultyNetwork, island: str) -> None:
        super().__init__(network, island)
        self._network = network

    async def connect(
        self,
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, Any],
        seconds: float = 10.0,
        lane: int = 0,
    ) -> Stream:
        await self._network.until_moving(self.island)
        for what in (frozenset((self.island, peer)), peer):
            await within(seconds, self._network.until_moving(what), peer)
        return _Stream(await super().connect(addresses, peer, service, seconds), self._network, self.island)

    async def serve(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        watched = {service: self._watched(handler) for service, handler in handlers.items()}
        return await super().serve(listen, watched)

    def _watched(self, handler: Handler) -> Handler:
        async def serve(stream: Stream) -> None:
            await handler(_Stream(stream, self._network, self.island))

        return serve


class _Stream:
    """A member's end of a call."""

    def __init__(self, stream: Stream, network: FaultyNetwork, me: str) -> None:
        self.peer, self.peer_host = stream.peer, stream.peer_host
        self._stream, self._network, self._me = stream, network, me

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        await self._network.until_moving(self._me)
        self._network.watch(self._me, self.peer, message)
        await self._network.until_moving(self._me)
        await self._stream.send(message, bulk)

    async def receive(self, seconds: float) -> Frame:
        return await self._once_moving(self._me, within(seconds, self._arrival(seconds), self.peer))

    async def _arrival(self, seconds: float) -> Frame:
        """The next frame; over a silent edge not even the end of the stream arrives."""
        return await self._once_moving(frozenset((self._me, self.peer)), self._stream.receive(seconds))

    async def _once_moving(self, what: str | frozenset[str], arrival: Awaitable[Frame]) -> Frame:
        """The frame, or the failure, once `what` is not halted. A cancellation does not wait for that."""
        try:
            frame = await arrival
        except TransportError:
            await self._network.until_moving(what)
            raise
        await self._network.until_moving(what)
        return frame

    async def close(self) -> None:
        await self._stream.close()
