"""A transport inside one process, for tests: the same frames, bounds and errors, and switches to break edges."""

import asyncio

from atoll.errors import UserError
from atoll.swarm.messages import AnyMessage
from atoll.swarm.records import Message
from atoll.swarm.transport import MAX_FRAME_BYTES, Service, TransportError, pack, unpack, within

_WINDOW_FRAMES = 16  # a sender waits once this many frames are unread, as with a real socket


class Network:
    """Who serves where, and which edges are cut."""

    def __init__(self) -> None:
        self.services: dict[str, tuple[str, dict[str, Service]]] = {}
        self.cut: set[frozenset[str]] = set()
        self.streams: list[tuple[str, str, MemoryStream, MemoryStream]] = []
        self._next_port = 1

    def port(self) -> int:
        self._next_port += 1
        return self._next_port

    def sever(self, island: str) -> None:
        """Break every stream of an island and refuse its address, as its death would."""
        self.services = {address: served for address, served in self.services.items() if served[0] != island}
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


class MemoryStream:
    """One end of a call."""

    def __init__(
        self, peer: str, incoming: "asyncio.Queue[bytes | str]", outgoing: "asyncio.Queue[bytes | str]"
    ) -> None:
        self.peer = peer
        self.peer_host = "memory"
        self.sent_bytes = 0
        self._incoming = incoming
        self._outgoing = outgoing
        self._broken = ""

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        frame = pack(message, bulk)
        if len(frame) > MAX_FRAME_BYTES:
            raise TransportError(f"a frame of {len(frame)} bytes is over the bound")
        if self._broken:
            raise TransportError(self._broken)
        await self._outgoing.put(frame)
        self.sent_bytes += len(frame)

    async def receive(self, seconds: float) -> tuple[AnyMessage, memoryview]:
        if self._broken and self._incoming.empty():
            raise TransportError(self._broken)
        try:
            frame = await asyncio.wait_for(self._incoming.get(), seconds)
        except TimeoutError:
            raise TransportError(f"{self.peer}: nothing came within {seconds:.1f} s") from None
        if isinstance(frame, str):
            self._broken = frame
            raise TransportError(frame)
        return unpack(frame)

    def break_off(self, reason: str) -> None:
        if not self._broken:
            self._broken = reason
            while self._incoming.full():
                self._incoming.get_nowait()
            self._incoming.put_nowait(reason)

    async def close(self) -> None:
        self.break_off("closed")
        while self._outgoing.full():
            await asyncio.sleep(0.001)
        self._outgoing.put_nowait(f"{self.peer}: the other end closed the stream")


class MemoryTransport:
    """One island's access to a `Network`."""

    def __init__(self, network: Network, island: str) -> None:
        self.network = network
        self.island = island
        self.sent_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, address: str, peer: str, service: str, seconds: float = 10.0) -> MemoryStream:
        served = self.network.services.get(address)
        if served is None or served[0] != peer or frozenset((self.island, peer)) in self.network.cut:
            raise TransportError(f"{peer} at {address} cannot be reached")
        there: asyncio.Queue[bytes | str] = asyncio.Queue(_WINDOW_FRAMES)
        back: asyncio.Queue[bytes | str] = asyncio.Queue(_WINDOW_FRAMES)
        near, far = MemoryStream(peer, back, there), MemoryStream(self.island, there, back)
        self.network.streams.append((self.island, peer, near, far))
        handler = served[1].get(service)
        if handler is None:
            raise TransportError(f"{peer} does not serve {service}")

        async def serve() -> None:
            try:
                await handler(far)
            except TransportError:
                pass
            finally:
                await within(5.0, far.close(), "closing")  # type: ignore[arg-type]

        task = asyncio.create_task(serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return near

    async def serve(self, host: str, port: int, services: dict[str, Service]) -> int:
        port = port or self.network.port()
        address = f"{host}:{port}"
        if address in self.network.services:
            raise UserError(f"{address} is in use; choose another port")
        self.network.services[address] = (self.island, services)
        return port

    async def close(self) -> None:
        self.network.sever(self.island)
        for task in list(self._tasks):
            task.cancel()
