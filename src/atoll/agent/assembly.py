"""An update in the making: pieces arrive in a mapped file, readers are served as soon as a piece is there."""

import asyncio
from pathlib import Path

import numpy as np

from atoll.agent.codec import Bytes, encoded_bytes
from atoll.agent.diloco import piece_bytes, update_bytes
from atoll.agent.log import Entry, Update, UpdateLog
from atoll.agent.state import OuterState
from atoll.files import reserve
from atoll.swarm.layout import DIGEST_BYTES, Layout, digest, root
from atoll.swarm.records import Attempt, Slice, UpdateHeader
from atoll.swarm.transport import TransportError


class Assembly:
    """The pieces of one attempt's update. Belongs to one event loop."""

    def __init__(self, directory: Path, layout: Layout, attempt: Attempt) -> None:
        """Make the file. Raises UserError when the disk is full."""
        self.layout = layout
        self.codec = attempt.codec
        self._path = directory / f".{attempt.step:08d}-{attempt.number}.assembling.tmp"
        self._table = bytearray(layout.num_pieces * DIGEST_BYTES)
        self._have = bytearray(layout.num_pieces)
        self._arrival = asyncio.Condition()
        reserve(self._path, update_bytes(layout, attempt.codec))
        self.data: Bytes = np.memmap(self._path, np.uint8, "r+")

    @property
    def full_piece_bytes(self) -> int:
        """The size of every piece but perhaps the last."""
        return encoded_bytes(self.codec, self.layout.piece_elements)

    @property
    def num_pieces(self) -> int:
        """How many are here."""
        return sum(self._have)

    async def put(self, index: int, data: bytes | memoryview) -> None:
        """Store a piece. Raises TransportError when its size is not what the layout says."""
        where = piece_bytes(self.layout, self.codec, index)
        if len(data) != where.stop - where.start:
            raise TransportError(f"piece {index} has {len(data)} bytes, expected {where.stop - where.start}")
        self.data[where] = np.frombuffer(data, np.uint8)
        self._table[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest(data)
        self._have[index] = 1
        async with self._arrival:
            self._arrival.notify_all()

    async def get(self, index: int) -> memoryview:
        """A piece, once it is there; whoever waits sets the deadline."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: self._have[index])
        return self.piece(index)

    def piece(self, index: int) -> memoryview:
        return self.data[piece_bytes(self.layout, self.codec, index)].data

    def slice_table(self, part: Slice) -> bytes:
        """Digests of a slice's pieces, in order."""
        return bytes(
            self._table[part.first_piece * DIGEST_BYTES : (part.first_piece + part.num_pieces) * DIGEST_BYTES]
        )

    def whole(self, part: Slice, slice_root: bytes) -> bool:
        """Whether a slice is here with exactly the bytes that `slice_root` names."""
        return all(self._have[i] for i in part.pieces) and root(self.slice_table(part)) == slice_root

    def finish(self, log: UpdateLog, header: UpdateHeader, next_table: bytes) -> None:
        """Turn into a held update, durably."""
        assert isinstance(self.data, np.memmap)
        self.data.flush()
        self._path.replace(log.data_path(header.step, header.digest()))
        log.hold(self._entry(header, next_table))

    def update(self, header: UpdateHeader, next_table: bytes) -> Update:
        """As an update for those chunks whose pieces are here."""
        return Update(self._entry(header, next_table), self.data, self.layout)

    def _entry(self, header: UpdateHeader, next_table: bytes) -> Entry:
        tables = (self.slice_table(Slice("", first, count)) for first, count, _ in header.slices)
        return Entry(header, tuple(tables), next_table)

    def apply_and_finish(self, state: OuterState, log: UpdateLog, header: UpdateHeader) -> bytes:
        """The table of the state that this update leads `state` to, once both are durable."""
        table = state.next_table(header, self.data)
        self.finish(log, header, table)
        return table

    def discard(self) -> None:
        """Remove the file if it has not become an update; the mapping stays readable."""
        self._path.unlink(missing_ok=True)
