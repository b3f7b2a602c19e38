"""A transport inside one process, for tests, with the frames, bounds and errors of the real one."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from atoll.errors import UserError
from atoll.swarm.address import Address
from atoll.swarm.changes import Changes
from atoll.swarm.limits import Doorkeeper
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.services import Service
from atoll.swarm.sockets import Crossed
from atoll.swarm.transport import DIAL_SECONDS, MAX_FRAME_BYTES, Handler, TransportError, pack, unpack, within

_WINDOW_FRAMES = 16  # a sender waits once this many frames are unread, as with a real socket

T = TypeVar("T", bound=Message)


class Network:
    """Who serves where, and which edges are cut."""

    def __init__(self) -> None:
        self.services: dict[Address, tuple[MemoryTransport, Mapping[Service[Any, Any], Handler]]] = {}
        self.cut: set[frozenset[str]] = set()
        self.streams: list[tuple[str, str, MemoryStream[Any], MemoryStream[Any]]] = []
        self._next_port = 1

    def port(self) -> int:
        self._next_port += 1
        return self._next_port

    def sever(self, island: str) -> None:
        """Break every stream of an island and refuse its address, as its death would."""
        self.services = {
            address: served for address, served in self.services.items() if served[0].island != island
        }
        for left, right, near, far in self.streams:
            if island in (left, right):
                near.break_off(f"{island} is gone")
                far.break_off(f"{island} is gone")

    def cut_edge(self, left: str, right: str) -> None:
        """Nothing passes between two islands any more; both still reach the others."""
        self.cut.add(frozenset((left, right)))
        for a, b, near, far in self.streams:
            if {a, b} == {left, right}:
                near.break_off("the edge is cut")
                far.break_off("the edge is cut")


class Pipe:
    """One direction of a call: frames in order, a bound on unread ones, and a reason once it is broken."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._reason = ""
        self._changes = Changes()

    async def put(self, frame: bytes) -> None:
        while len(self._frames) >= _WINDOW_FRAMES and not self._reason:
            await self._changes.next()
        if self._reason:
            raise TransportError(self._reason)
        self._frames.append(frame)
        self._changes.note()

    async def get(self) -> bytes:
        while not self._frames and not self._reason:
            await self._changes.next()
        if not self._frames:
            raise TransportError(self._reason)
        self._changes.note()
        return self._frames.popleft()

    def break_off(self, reason: str) -> None:
        """Nothing more goes in; what is in can still be read."""
        self._reason = self._reason or reason
        self._changes.note()


class MemoryStream(Generic[T]):
    """One end of a call."""

    def __init__(
        self, peer: str, door: Door[T], incoming: Pipe, outgoing: Pipe, count: Callable[[int], None]
    ) -> None:
        self.peer = peer
        self.peer_host = "memory"
        self._door = door
        self._incoming = incoming
        self._outgoing = outgoing
        self._count = count

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        frame = pack(message, bulk)
        if len(frame) > MAX_FRAME_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes is over the bound")
        await self._outgoing.put(frame)
        self._count(len(frame))

    async def receive(self, seconds: float) -> tuple[T, memoryview]:
        return unpack(await within(seconds, self._incoming.get(), self.peer), self._door)

    async def close(self) -> None:
        self.break_off(f"{self.peer}: the other end closed the stream")

    def break_off(self, reason: str) -> None:
        self._incoming.break_off(reason)
        self._outgoing.break_off(reason)


class MemoryTransport:
    """One island's access to a `Network`."""

    def __init__(self, network: Network, island: str) -> None:
        self.network = network
        self.island = island
        self.sent_bytes = 0
        self._doorkeeper = Doorkeeper()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(
        self,
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, T],
        seconds: float = DIAL_SECONDS,
        lane: int = 0,
    ) -> MemoryStream[T]:
        found = (self.network.services.get(address) for address in addresses)
        served = next((served for served in found if served is not None and served[0].island == peer), None)
        if served is None or frozenset((self.island, peer)) in self.network.cut:
            raise TransportError(f"{peer} at {', '.join(map(str, addresses))} cannot be reached")
        there, back = Pipe(), Pipe()
        near = MemoryStream(peer, service.caller_door, back, there, self._add)
        far = MemoryStream(self.island, service.server_door, there, back, served[0]._add)
        self.network.streams.append((self.island, peer, near, far))
        handler = served[1].get(service)
        if handler is None:
            raise TransportError(f"{peer} does not serve {service.name}")

        async def serve() -> None:
            try:
                await handler(far)
            except TransportError:
                pass
            finally:
                await far.close()

        task = asyncio.create_task(serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

    async def serve(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        port = listen.port or self.network.port()
        address = listen.with_port(port)
        if address in self.network.services:
            raise UserError(f"{address} is in use; choose another port")
        limited = {service: self._doorkeeper.within_limits(service, h) for service, h in handlers.items()}
        self.network.services[address] = (self, limited)
        return port

    def revoke(self, peers: Iterable[str]) -> None:
        self._doorkeeper.revoke(peers)

    def _add(self, size: int) -> None:
        self.sent_bytes += size

    def crossed(self) -> Mapping[int, Crossed]:
        return {}  # nothing leaves this machine

    async def close(self) -> None:
        self.network.sever(self.island)
        for task in list(self._tasks):
            task.cancel()
