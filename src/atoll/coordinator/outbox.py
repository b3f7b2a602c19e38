"""What an agent's line is to send: bounded, in order, and closed from this end."""

import asyncio
from typing import Any

from atoll.swarm.messages.control import ToAgent
from atoll.swarm.transport import Stream, TransportError, together, within

MAX_MESSAGES = 2048  # that an agent has not read
READ_SECONDS = 30.0  # for an agent to make room for the next message
LAST_SECONDS = 2.0  # for it to read why its line is closed


class Outbox:
    """The messages for one agent, until its line ends: who does not read them is let go."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[ToAgent] = asyncio.Queue(MAX_MESSAGES)
        self._closed = asyncio.Event()
        self._is_read = asyncio.Event()
        self._is_read.set()
        self._reason = ""

    @property
    def is_closed(self) -> bool:
        """Whether nothing that comes on this line counts any more."""
        return self._closed.is_set()

    def put(self, message: ToAgent) -> None:
        """Have a message sent. If too many are unread, the line is closed instead."""
        if self.is_closed:
            return
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self._close("it does not read what it is told")
        else:
            self._is_read.clear()

    def close(self, last: ToAgent, reason: str) -> None:
        """Have this sent as the last message, and end the line, whether or not that is read."""
        self._messages = asyncio.Queue()
        self._messages.put_nowait(last)
        self._close(reason)

    def replace(self) -> "Outbox":
        """The outbox of a newer line of the same agent; this one is closed."""
        self._close("a newer line has taken its place")
        return Outbox()

    async def until_read(self) -> None:
        """Wait until everything so far has been sent: who asks for much reads it first."""
        await self._is_read.wait()

    async def send(self, stream: Stream[Any]) -> None:
        """Send what is put in, as the writer of a line; raises TransportError once it is closed."""
        await together(self._write(stream), self._end())

    async def _write(self, stream: Stream[Any]) -> None:
        while True:
            message = await self._messages.get()
            await within(READ_SECONDS, stream.send(message), stream.peer)
            if self._messages.empty():
                self._is_read.set()
                if self.is_closed:
                    raise TransportError(self._reason)

    async def _end(self) -> None:
        await self._closed.wait()
        await asyncio.sleep(LAST_SECONDS)
        raise TransportError(self._reason)

    def _close(self, reason: str) -> None:
        self._reason = reason
        self._closed.set()
