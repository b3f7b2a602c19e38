"""The agent's end of the socket to its trainer. A lost socket is the trainer's death: it is an inherited
pair.
"""

import asyncio
import socket
import struct
from typing import Protocol

from atoll.swarm.messages import AnyMessage
from atoll.swarm.records import Message
from atoll.swarm.transport import MAX_FRAME_BYTES, TransportError, pack, unpack

_LENGTH = struct.Struct("<I")


class Trainer(Protocol):
    """Whoever computes the inner steps."""

    def tell(self, message: Message) -> None: ...

    async def hear(self) -> AnyMessage:
        """The next message. Raises TransportError when the trainer is gone."""
        ...


class SocketTrainer:
    """A trainer in another process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(handle: int) -> "SocketTrainer":
        """On an inherited file descriptor."""
        reader, writer = await asyncio.open_connection(
            sock=socket.socket(fileno=handle), limit=2 * MAX_FRAME_BYTES
        )
        return SocketTrainer(reader, writer)

    def tell(self, message: Message) -> None:
        self._writer.write(frame(message))

    async def hear(self) -> AnyMessage:
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MAX_FRAME_BYTES:
                raise TransportError("the trainer sent an oversized frame")
            return unpack(await self._reader.readexactly(length))[0]
        except (asyncio.IncompleteReadError, OSError):
            raise TransportError("the trainer is gone") from None


def frame(message: Message) -> bytes:
    """A message on the local socket: length, then a frame as on the network."""
    body = pack(message)
    return _LENGTH.pack(len(body)) + body


def read_frame(connection: socket.socket) -> AnyMessage:
    """The next message, blocking within the socket's timeout. Raises TransportError when the other end is
    gone.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise TransportError("the agent sent an oversized frame")
    return unpack(_exactly(connection, length))[0]


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise TransportError("the agent is gone")
        data += part
    return bytes(data)
