"""What one member may ask of another at once: how many streams, and how many messages a second.

The figures stand in the table of services (`services.py`). Who opens more streams than it may loses its
oldest ones. Who sends more messages is read more slowly, so that what it sends waits in its own socket. Bytes
are bounded by the doors (`messages/door.py`) and by frames (`transport.py`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from atoll.swarm.records import Message
from atoll.swarm.services import Service
from atoll.swarm.transport import Handler, Stream, TransportError, together

MAX_PACES = 4096  # that are remembered of members without an open stream


class Pace:
    """Lets so many messages a second through, after a burst."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst_seconds = burst / per_second
        self._free_at = 0.0  # when all that has come is made up for

    async def take(self) -> None:
        """Wait until one more message may be taken."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + 1 / self._per_second
        if (ahead_seconds := self._free_at - now - self._burst_seconds) > 0:
            await asyncio.sleep(ahead_seconds)

    def is_rested(self) -> bool:
        """Whether it holds nothing against whoever comes next."""
        return self._free_at <= asyncio.get_running_loop().time()


class Doorkeeper:
    """Serves streams within the limits of their service, for one process, and none of who is revoked."""

    def __init__(self) -> None:
        self._revoked: frozenset[str] = frozenset()
        self._open: defaultdict[tuple[str, str], list[asyncio.Future[None]]] = defaultdict(list)
        self._paces: dict[tuple[str, str], Pace] = {}

    def revoke(self, peers: Iterable[str]) -> None:
        """These, and no others, are members no more: their streams end, and new ones are not served."""
        self._revoked = frozenset(peers)
        for (_, who), streams in self._open.items():
            if who in self._revoked:
                _end(streams, "it was evicted from this run")

    def within_limits(self, service: Service[Any, Any], handler: Handler) -> Handler:
        """The handler, held to the limits of its service."""

        async def serve(stream: Stream[Any]) -> None:
            who = stream.peer or stream.peer_host  # a stranger has only an address
            if who in self._revoked:
                raise TransportError(f"{who} was evicted from this run")
            ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            streams = self._open[service.name, who]
            streams.append(ending)
            _end(streams[: -service.limit.num_streams], "newer streams have taken its place")
            try:
                await together(self._handle(handler, service, who, stream, ending), _until(ending))
            finally:
                streams.remove(ending)
                if not streams:
                    self._open.pop((service.name, who), None)

        return serve

    async def _handle(
        self,
        handler: Handler,
        service: Service[Any, Any],
        who: str,
        stream: Stream[Any],
        ending: asyncio.Future[None],
    ) -> None:
        await handler(PacedStream(stream, self._pace(service, who)))
        if not ending.done():
            ending.set_result(None)

    def _pace(self, service: Service[Any, Any], who: str) -> Pace | None:
        limit = service.limit
        if not limit.messages_per_second:
            return None
        if len(self._paces) >= MAX_PACES:
            self._paces = {key: pace for key, pace in self._paces.items() if not pace.is_rested()}
        return self._paces.setdefault((service.name, who), Pace(limit.messages_per_second, limit.burst))


class PacedStream:
    """A stream whose messages are taken at a pace."""

    def __init__(self, stream: Stream[Any], pace: Pace | None) -> None:
        self.peer, self.peer_host = stream.peer, stream.peer_host
        self._stream = stream
        self._pace = pace

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        await self._stream.send(message, bulk)

    async def receive(self, seconds: float) -> tuple[Any, memoryview]:
        if self._pace is not None:
            await self._pace.take()
        return await self._stream.receive(seconds)

    async def close(self) -> None:
        await self._stream.close()


def _end(streams: Iterable[asyncio.Future[None]], reason: str) -> None:
    for ending in streams:
        if not ending.done():
            ending.set_exception(TransportError(reason))


async def _until(ending: asyncio.Future[None]) -> None:
    await ending
