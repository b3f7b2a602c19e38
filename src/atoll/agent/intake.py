"""A participant's pieces at the owner of a slice: they come over several lanes and leave in one order."""

import asyncio

from atoll.swarm.transport import TransportError


class Intake:
    """Holds what has come too early, and lets nobody run ahead further than there is room."""

    def __init__(self, pieces: range, room: int) -> None:
        """At most `room` pieces are kept; what comes further ahead waits in its sender's socket."""
        self.num_arrived = 0
        self.taken_came_at = 0.0  # by the loop's clock: when the piece that was taken last had come
        self._pieces = pieces
        self._room = room
        self._next = pieces.start
        self._kept: dict[int, tuple[float, memoryview]] = {}
        self._table: bytes | None = None
        self._changed = asyncio.Condition()

    async def name(self, table: bytes) -> None:
        """Say what the pieces must be: the rows of all pieces of the payload."""
        async with self._changed:
            self._table = table
            self._changed.notify_all()

    async def table(self) -> bytes:
        """What the pieces must be, once it is known; whoever waits sets the deadline."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._table is not None)
        assert self._table is not None
        return self._table

    async def put(self, index: int, piece: memoryview) -> None:
        """Keep a piece, once there is room. Raises TransportError for one that came before, or is not due.

        The next piece always has room, so that those that came too early cannot keep it out.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: index < self._next + self._room)
            if index not in self._pieces or index < self._next or index in self._kept:
                raise TransportError(f"piece {index} is not one that is still to come")
            self._kept[index] = asyncio.get_running_loop().time(), piece
            self.num_arrived += 1
            self._changed.notify_all()

    async def take(self) -> memoryview:
        """The next piece, once it is there; whoever waits sets the deadline."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._next in self._kept)
            self.taken_came_at, piece = self._kept.pop(self._next)
            self._next += 1
            self._changed.notify_all()
        return piece
