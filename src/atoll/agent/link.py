"""The agent's line to its coordinator: a Hello, then Beats; it is opened again whenever it breaks."""

import asyncio
from collections.abc import Callable

from atoll.swarm.address import Addresses
from atoll.swarm.identity import COORDINATOR
from atoll.swarm.messages import Beat, Hello, control
from atoll.swarm.services import CONTROL
from atoll.swarm.transport import Stream, Transport, TransportError, together

BEAT_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.2  # before the next dial; doubled after each that fails
# A refused dial is cheap, and a coordinator is back within seconds: islands must not oversleep it.
MAX_PAUSE_SECONDS = 1.0
# Every Beat is answered: a line that says nothing for so long is dead, or its coordinator is frozen.
SILENT_SECONDS = 10.0


class Link:
    """Sends and receives while the line is up; what could not be sent is said again after the next Hello."""

    def __init__(
        self,
        transport: Transport,
        addresses: Callable[[], Addresses],
        hello: Callable[[], Hello],
        beat: Callable[[], Beat],
        received: Callable[[control.ToAgent], None],
        changed: Callable[[str], None],
    ) -> None:
        """`changed` hears "" when the line is up, else why it is down."""
        self._transport = transport
        self._addresses = addresses
        self._turn = 0  # which of the addresses is tried
        self._hello = hello
        self._beat = beat
        self._received = received
        self._changed = changed
        self._outbox: asyncio.Queue[control.ToCoordinator] = asyncio.Queue()
        self._up = False

    def send(self, message: control.ToCoordinator) -> None:
        """Hand over a message; dropped while the line is down."""
        if self._up:
            self._outbox.put_nowait(message)

    async def run(self) -> None:
        """Keep the line up until cancelled; pauses double up to MAX_PAUSE_SECONDS."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                addresses = self._addresses()
                address = addresses[self._turn % len(addresses)]
                stream = await self._transport.connect((address,), COORDINATOR, CONTROL)
                try:
                    await stream.send(self._hello())
                    self._outbox = asyncio.Queue()
                    self._up, pause_seconds = True, FIRST_PAUSE_SECONDS
                    self._changed("")
                    await together(self._read(stream), self._write(stream), self._keep_beating())
                finally:
                    self._up = False
                    await stream.close()
            except TransportError as error:
                self._changed(str(error))
                self._turn += 1
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def _read(self, stream: Stream[control.ToAgent]) -> None:
        while True:
            message, _ = await stream.receive(SILENT_SECONDS)
            self._received(message)

    async def _write(self, stream: Stream[control.ToAgent]) -> None:
        while True:
            await stream.send(await self._outbox.get())

    async def _keep_beating(self) -> None:
        while True:
            self.send(self._beat())
            await asyncio.sleep(BEAT_SECONDS)
