"""The trainer as its agent sees it: the agent's end of the socket that they share.

The socket is one of a pair that the agent's process inherited, so its end is the trainer's death.
"""

import asyncio
import socket
from typing import Protocol

from atoll.agent.frames import frame, receive_frame
from atoll.swarm.messages import trainer
from atoll.swarm.transport import MAX_FRAME_BYTES, TransportError


class Trainer(Protocol):
    """Whoever computes the inner steps."""

    def tell(self, message: trainer.ToTrainer) -> None:
        """Send a message; it is lost when the trainer is gone."""
        ...

    async def hear(self) -> trainer.ToAgent:
        """The next message. Raises TransportError when the trainer is gone, or says what it may not."""
        ...


class SocketTrainer:
    """A trainer in another process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(handle: int) -> "SocketTrainer":
        """The trainer at the other end of an inherited file descriptor."""
        reader, writer = await asyncio.open_connection(
            sock=socket.socket(fileno=handle), limit=2 * MAX_FRAME_BYTES
        )
        return SocketTrainer(reader, writer)

    def tell(self, message: trainer.ToTrainer) -> None:
        self._writer.write(frame(message))

    async def hear(self) -> trainer.ToAgent:
        try:
            return await receive_frame(self._reader, trainer.AGENT_DOOR)
        except (asyncio.IncompleteReadError, OSError):
            raise TransportError("the trainer is gone") from None
