"""Encoded pieces, of a payload or of an update, and the table that names them.

A table has one row per piece, PIECE_ROW_BYTES long: the piece's digest, then its size in bytes (uint32,
little endian). Whoever names a table by its root has so fixed the bytes of every piece, how many these are,
and where each piece begins when some of them travel one after the other.

In a file each piece has a slot of its own, as large as its codec can ever need: a piece can be written before
the sizes of the others are known, and nothing ever has to move.
"""

import numpy as np
import numpy.typing as npt

from atoll.agent.arrays import Bytes
from atoll.agent.codecs import Codec
from atoll.agent.mapped import sync_mapped
from atoll.swarm.layout import DIGEST_BYTES, Layout, digest

PIECE_ROW_BYTES = DIGEST_BYTES + 4
_ROW = np.dtype([("digest", f"V{DIGEST_BYTES}"), ("size", "<u4")])


class FalsePieces(ValueError):
    """Pieces that have their agreed digests and yet cannot be decoded; whoever made them is at fault.

    `index` is one of them.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"piece {index} cannot be decoded: {reason}")
        self.index = index


class Pieces:
    """All pieces of one flat space: a slot for each, and their table. The row of an absent piece is zeros."""

    def __init__(
        self, layout: Layout, codec: Codec, slots: Bytes, table: bytes | bytearray | None = None
    ) -> None:
        """`slots` are [slots_bytes(layout, codec)] uint8; `table` has all rows, None stands for no piece."""
        self.layout = layout
        self.codec = codec
        self.table = table if table is not None else bytearray(layout.num_pieces * PIECE_ROW_BYTES)
        self._file = slots if isinstance(slots, np.memmap) else None
        self._slots = np.asarray(slots)  # to look up a part of a mapped file takes ten times as long
        self._slot_bytes = codec.max_bytes(layout.piece_elements)

    def __getitem__(self, index: int) -> memoryview:
        """The bytes of a piece that is here."""
        start, end = index * self._slot_bytes, (index + 1) * PIECE_ROW_BYTES
        size = int.from_bytes(self.table[end - 4 : end], "little")
        return self._slots[start : start + size].data

    def slot(self, index: int) -> Bytes:
        """Where to write a piece, before `seal`."""
        start = index * self._slot_bytes
        return self._slots[start : start + self._slot_bytes]

    def seal(self, index: int, size: int) -> None:
        """The first `size` bytes of a slot are the piece: give it its row of the table."""
        assert isinstance(self.table, bytearray), "these pieces are read only"
        start = index * PIECE_ROW_BYTES
        self.table[start : start + PIECE_ROW_BYTES] = piece_row(self.slot(index)[:size].data)

    def flush(self) -> None:
        """Write what is mapped from a file to the disk."""
        if self._file is not None:
            sync_mapped(self._file)


def slots_bytes(layout: Layout, codec: Codec) -> int:
    """The size of a file with a slot for every piece; only that of the very last may be smaller."""
    last = layout.piece(layout.num_pieces - 1)
    return (layout.num_pieces - 1) * codec.max_bytes(layout.piece_elements) + codec.max_bytes(
        last.stop - last.start
    )


def piece_row(piece: bytes | memoryview) -> bytes:
    """A piece's row of a table."""
    return digest(piece) + len(piece).to_bytes(4, "little")


def piece_rows(table: bytes | bytearray, pieces: range) -> bytes:
    """The rows of some pieces, out of the table of all."""
    return bytes(table[pieces.start * PIECE_ROW_BYTES : pieces.stop * PIECE_ROW_BYTES])


def check_piece(table: bytes | bytearray, index: int, piece: bytes | memoryview) -> bool:
    """Whether a piece has the digest and the size that row `index` of a table says."""
    return piece_row(piece) == table[index * PIECE_ROW_BYTES : (index + 1) * PIECE_ROW_BYTES]


def piece_sizes(table: bytes) -> npt.NDArray[np.uint32]:
    """The size in bytes that each row of a table says [rows]."""
    return np.frombuffer(table, _ROW)["size"]


def check_table(table: bytes, layout: Layout, codec: Codec, pieces: range) -> None:
    """Raises FalsePieces unless `table` has one row for each of these pieces, with a size that the codec can
    give.

    Nothing is allocated, and no offset computed, from the table of a peer before this.
    """
    if len(table) != len(pieces) * PIECE_ROW_BYTES:
        raise FalsePieces(pieces.start, f"its table has {len(table)} bytes for {len(pieces)} pieces")
    sizes, full = piece_sizes(table), layout.piece_elements
    possible = (codec.min_bytes(full) <= sizes) & (sizes <= codec.max_bytes(full))
    doubtful = set(np.flatnonzero(~possible).tolist())
    if pieces and pieces.stop == layout.num_pieces:
        doubtful.add(len(pieces) - 1)  # the very last piece may have fewer elements
    for at in sorted(doubtful):
        elements = layout.piece(pieces[at])
        try:
            codec.check_size(int(sizes[at]), elements.stop - elements.start)
        except ValueError as error:
            raise FalsePieces(pieces[at], str(error)) from error
