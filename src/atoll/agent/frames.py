"""Frames on the socket between a trainer and its agent: a length, then a frame as on the network.

Each end reads through its own door of the trainer's plane: only messages of that door come out.
"""

import asyncio
import socket
import struct
from typing import TypeVar

from atoll.swarm.messages.door import Door
from atoll.swarm.records import Message
from atoll.swarm.transport import MAX_FRAME_BYTES, TransportError, pack, unpack

_LENGTH = struct.Struct("<I")
M = TypeVar("M", bound=Message)


def frame(message: Message) -> bytes:
    """The bytes that carry one message."""
    body = pack(message)
    return _LENGTH.pack(len(body)) + body


def read_frame(connection: socket.socket, door: Door[M]) -> M:
    """The next message, for a process that may block: a trainer.

    Raises TransportError when the agent is gone or its frame is malformed, NotUnderstood when its message is
    not one of the door's, and TimeoutError when nothing came within the socket's timeout.
    """
    body = _exactly(connection, _num_bytes(_exactly(connection, _LENGTH.size)))
    return unpack(body, door)[0]


async def receive_frame(reader: asyncio.StreamReader, door: Door[M]) -> M:
    """The next message, for a process that must not block: an agent.

    Raises asyncio.IncompleteReadError when the trainer is gone, TransportError when its frame is malformed,
    and NotUnderstood when its message is not one of the door's.
    """
    body = await reader.readexactly(_num_bytes(await reader.readexactly(_LENGTH.size)))
    return unpack(body, door)[0]


def _num_bytes(head: bytes) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise TransportError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return length


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except ConnectionError:  # it died without reading all that we sent
            part = b""
        if not part:
            raise TransportError("the agent is gone")
        data += part
    return bytes(data)
