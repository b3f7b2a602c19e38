"""How messages travel: one kind of call. A stream carries frames (a message and some bulk bytes) both ways.

A service (`services.py`) has a name, and a door for each end of its streams: what comes through is of that
service, and anything else raises NotUnderstood. It is served by a handler, an async callable that takes the
stream. Everything else (unary calls, uploads, downloads, the control plane) is a use of that.
`grpc_transport.py` is the real transport, `memory_transport.py` the one for tests.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from atoll.swarm.address import Address
from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message, encode
from atoll.swarm.services import Service
from atoll.swarm.sockets import Crossed

MAX_FRAME_BYTES = 4 << 20  # no peer makes us allocate more at once
DIAL_SECONDS = 5.0  # until a name is resolved, or somebody answers
_LENGTH = struct.Struct("<I")

M = TypeVar("M", bound=Message)
T = TypeVar("T", bound=Message)
R = TypeVar("R")
Received = TypeVar("Received", bound=Message, covariant=True)


class TransportError(Exception):
    """The peer cannot be reached, broke off, or sent what it must not. The text names it."""


class NotUnderstood(TransportError):
    """What came is no message of this line, or of another version of atoll."""


class Stream(Protocol[Received]):
    """One end of a call. `peer` is the authenticated id of the other end's member ("" before enrolment)."""

    peer: str
    peer_host: str  # the other end's IP address, as it is seen from here

    async def send(self, message: Message, bulk: bytes | memoryview = b"") -> None:
        """Hand one frame to the transport; waits while the peer does not read. Raises TransportError."""
        ...

    async def receive(self, seconds: float) -> tuple[Received, memoryview]:
        """The next frame's message, one of this end's door, and its bulk.

        Raises TransportError when the peer is gone or nothing came within `seconds`, and NotUnderstood for a
        message that may not come here.
        """
        ...

    async def close(self) -> None:
        """End the call; safe to call twice."""
        ...


Handler = Callable[[Stream[Any]], Awaitable[None]]  # serves one stream; its end ends the call


class Transport(Protocol):
    """Dials peers and serves them. `sent_bytes` counts what left, framing included."""

    sent_bytes: int

    async def connect(
        self,
        addresses: Sequence[Address],
        peer: str,
        service: Service[Any, T],
        seconds: float = DIAL_SECONDS,
        lane: int = 0,
    ) -> Stream[T]:
        """A stream to `service` of `peer`, whose identity is verified, at the first address that works.

        What has worked for a peer is tried first from then on. Streams of different lanes travel on
        connections of their own. Raises TransportError.
        """
        ...

    async def serve(self, listen: Address, handlers: Mapping[Service[Any, Any], Handler]) -> int:
        """Serve; the port that was taken. Raises UserError when the port is in use."""
        ...

    def revoke(self, peers: Iterable[str]) -> None:
        """These, and no others, are members no more: their streams end, and new ones are not served."""
        ...

    def crossed(self) -> Mapping[int, Crossed]:
        """By connection, what has crossed this machine's link; nothing where that is not known."""
        ...

    async def close(self) -> None: ...


def pack(message: Message, bulk: bytes | memoryview = b"") -> bytes:
    """One frame: length of the message, message, bulk."""
    head = encode(message)
    return b"".join((_LENGTH.pack(len(head)), head, bulk))


def unpack(frame: bytes, door: Door[M]) -> tuple[M, memoryview]:
    """The message and bulk of a frame, read through a door.

    Raises TransportError for a malformed frame, NotUnderstood for a message that is not one of the door's.
    """
    if len(frame) < _LENGTH.size or len(frame) > MAX_FRAME_BYTES:
        raise TransportError(f"a frame of {len(frame)} bytes is not valid")
    (length,) = _LENGTH.unpack_from(frame)
    view = memoryview(frame)
    if length > len(frame) - _LENGTH.size:
        raise TransportError("a frame is shorter than it says")
    try:
        return door.decode(view[_LENGTH.size : _LENGTH.size + length]), view[_LENGTH.size + length :]
    except ValueError as error:
        raise NotUnderstood(str(error)) from error


def expect(message: Message, kind: type[T]) -> T:
    """`message` if it is of `kind`, else TransportError."""
    if not isinstance(message, kind):
        raise TransportError(f"expected {kind.__name__}, got {type(message).__name__}")
    return message


async def call(
    transport: Transport,
    addresses: Sequence[Address],
    peer: str,
    service: Service[Any, T],
    request: Message,
    seconds: float = 10.0,
) -> T:
    """One request, one answer. Raises TransportError."""
    stream = await transport.connect(addresses, peer, service, min(seconds, DIAL_SECONDS))
    try:
        await stream.send(request)
        answer, _ = await stream.receive(seconds)
        return answer
    finally:
        await stream.close()


async def within(seconds: float, work: Awaitable[R], what: str) -> R:
    """The result of `work`, or TransportError when it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):  # wait_for of Python 3.11 can swallow a cancellation
            return await work
    except TimeoutError:
        raise TransportError(f"{what}: no answer within {seconds:.1f} s") from None


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all; when one fails the others are cancelled and its error is raised, as from a single coroutine.

    Not a TaskGroup: that of Python 3.11 forgets a cancellation from outside when a child fails at the same
    time.
    """
    tasks = [asyncio.create_task(part) for part in work]
    failed: list[
        BaseException
    ] = []  # in the order of time: what came first is the cause, the rest may follow from it

    def note(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failed.append(error)

    for task in tasks:
        task.add_done_callback(note)
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise failed[0]
