"""An update in the making: pieces arrive in a mapped file, and whoever waits for a piece gets it at once."""

import asyncio
from pathlib import Path

import numpy as np

from atoll.agent.arrays import Bytes
from atoll.agent.codecs import codec_named
from atoll.agent.diloco import Direction
from atoll.agent.log import Entry, Update, UpdateLog
from atoll.agent.pieces import Pieces, piece_rows, slots_bytes
from atoll.agent.state import OuterState
from atoll.files import reserve
from atoll.swarm.layout import Layout, root
from atoll.swarm.records import Attempt, Slice, UpdateHeader
from atoll.swarm.transport import TransportError


class Assembly:
    """The pieces of one attempt's update. Belongs to one event loop."""

    def __init__(self, directory: Path, layout: Layout, attempt: Attempt) -> None:
        """Make the file. Raises UserError when the disk is full, or this version does not know the codec."""
        self.layout = layout
        self.codec = codec_named(attempt.codec)
        self._path = directory / f".{attempt.step:08d}-{attempt.number}.assembling.tmp"
        self._have = bytearray(layout.num_pieces)
        self._awaited: dict[int, asyncio.Event] = {}  # by piece that somebody waits for
        reserve(self._path, slots_bytes(layout, self.codec))
        self._slots: Bytes = np.memmap(self._path, np.uint8, "r+")
        self.pieces = Pieces(layout, self.codec, self._slots)

    @property
    def num_pieces(self) -> int:
        """How many are here."""
        return sum(self._have)

    async def put(self, index: int, data: bytes | memoryview) -> None:
        """Store a piece. Raises TransportError when the codec cannot have given so many bytes."""
        elements = self.layout.piece(index)
        try:
            self.codec.check_size(len(data), elements.stop - elements.start)
        except ValueError as error:
            raise TransportError(f"piece {index} has {error}") from None
        self.pieces.slot(index)[: len(data)] = np.frombuffer(data, np.uint8)
        self.pieces.seal(index, len(data))
        self._have[index] = 1
        if arrival := self._awaited.pop(index, None):
            arrival.set()

    async def get(self, index: int) -> memoryview:
        """A piece, once it is there; whoever waits sets the deadline."""
        if not self._have[index]:
            await self._awaited.setdefault(index, asyncio.Event()).wait()
        return self.pieces[index]

    def slice_table(self, part: Slice) -> bytes:
        """The rows of a slice's pieces."""
        return piece_rows(self.pieces.table, part.pieces)

    def whole(self, part: Slice, slice_root: bytes) -> bool:
        """Whether a slice is here with exactly the bytes that `slice_root` names."""
        return all(self._have[i] for i in part.pieces) and root(self.slice_table(part)) == slice_root

    def finish(self, log: UpdateLog, header: UpdateHeader, next_table: bytes) -> None:
        """Turn into a held update, durably."""
        self.pieces.flush()
        self._path.replace(log.data_path(header.step, header.digest()))
        log.hold(self._entry(header, next_table))

    def update(self, header: UpdateHeader, next_table: bytes) -> Update:
        """As an update for those chunks whose pieces are here."""
        return Update(self._entry(header, next_table), self._slots, self.layout)

    def _entry(self, header: UpdateHeader, next_table: bytes) -> Entry:
        return Entry(header, bytes(self.pieces.table), next_table)

    def apply_and_finish(
        self, state: OuterState, log: UpdateLog, header: UpdateHeader, direction: Direction | None = None
    ) -> bytes:
        """The table of the state that this update leads `state` to, once both are durable.

        `direction`, where it is given, learns what the update is. Raises FalsePieces when a piece is no
        encoding, UserError when the disk is full.
        """
        table = state.next_table(header, self.pieces, direction)
        self.finish(log, header, table)
        return table

    def discard(self) -> None:
        """Remove the file if it has not become an update; the mapping stays readable."""
        self._path.unlink(missing_ok=True)
