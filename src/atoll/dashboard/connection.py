"""How the server bears with those who connect: not for ever, and not with too many."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 1_000  # at once; a browser opens several
BUFFER_BYTES = 64 << 10  # that wait for one who reads slowly
PATIENCE_SECONDS = 20.0  # with one who reads nothing, or asks nothing


class PatientProtocol(H11Protocol):
    """HTTP with one who must ask, and must read what is sent, else the connection is cut.

    An asyncio transport that is closed waits until its buffer is empty: with one who never reads that is
    never, so it is aborted.
    """

    patience_seconds = PATIENCE_SECONDS
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self.loop.call_later(self.patience_seconds, self._must_have_asked)

    def _must_have_asked(self) -> None:
        if cast("Any", self).cycle is None:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.patience_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
