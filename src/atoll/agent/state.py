"""The outer state of an island: parameters and momentum, fp32, flat, in memory-mapped files, moved on chunk
by chunk.

A chunk is what its hash says; version numbers are hints that live only as long as the process. A table has
one row per chunk: the digest of its parameters, then of its momentum, so that a trainer can prove the half
that it loads.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from atoll.agent import diloco
from atoll.agent.arrays import Floats
from atoll.agent.mapped import LOCAL, MOMENTUM, PARAMETERS, as_bytes, map_file, map_generation
from atoll.agent.pieces import FalsePieces, Pieces
from atoll.swarm.layout import DIGEST_BYTES, Layout, digest
from atoll.swarm.records import UpdateHeader

ROW_BYTES = 2 * DIGEST_BYTES
UNKNOWN = -1


class OuterState:
    """Chunks with versions. A chunk is applied, read or written by one thread at a time."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        """Map the files in `directory`, making them where absent. Raises UserError when the disk is full."""
        self.layout = layout
        self.parameters = map_file(directory / PARAMETERS, layout.num_elements)
        self.momentum = map_file(directory / MOMENTUM, layout.num_elements)
        self.local = map_file(directory / LOCAL, layout.num_elements)  # what the trainer hands over
        self._generation = map_generation(directory)
        if self._generation[0] % 2:
            self._generation[0] += 1  # a crash in the middle of an apply: the chunks' hashes will tell
        self.versions = [UNKNOWN] * layout.num_chunks
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """The version that all chunks have, or UNKNOWN."""
        first = self.versions[0]
        return first if all(v == first for v in self.versions) else UNKNOWN

    def row(self, chunk: int) -> bytes:
        """The chunk's row of the table, hashed now."""
        elements = self.layout.chunk(chunk)
        return chunk_row(self.parameters[elements], self.momentum[elements])

    def table(self) -> bytes:
        return b"".join(self.row(i) for i in range(self.layout.num_chunks))

    def read(self, chunk: int) -> tuple[int, bytes]:
        """(version, parameters followed by momentum) of a chunk, copied between two applies of it."""
        elements = self.layout.chunk(chunk)
        with self._lock:
            data = self.parameters[elements].tobytes() + self.momentum[elements].tobytes()
            return self.versions[chunk], data

    def write(self, chunk: int, version: int, data: bytes | memoryview) -> None:
        """Replace a chunk with verified bytes of a version."""
        elements = self.layout.chunk(chunk)
        values = np.frombuffer(data, np.float32)
        half = elements.stop - elements.start
        with self._lock, self._changing():
            self.versions[chunk] = UNKNOWN
            self.parameters[elements] = values[:half]
            self.momentum[elements] = values[half:]
            self.versions[chunk] = version

    def apply(self, header: UpdateHeader, pieces: Pieces, chunk: int, expected_row: bytes) -> bool:
        """Move a chunk from header.step to header.step + 1 by the update of these pieces.

        False, and the chunk's version is UNKNOWN, if it is not what it should be afterwards.
        """
        elements = self.layout.chunk(chunk)
        with self._lock, self._changing():
            self.versions[chunk] = UNKNOWN
            try:
                diloco.apply(header, pieces, chunk, self.parameters[elements], self.momentum[elements])
            except FalsePieces:  # most likely damaged on our disk since the update was held
                return False
            if self.row(chunk) != expected_row:
                return False
            self.versions[chunk] = header.step + 1
            return True

    def next_table(
        self, header: UpdateHeader, pieces: Pieces, direction: diloco.Direction | None = None
    ) -> bytes:
        """The table that applying the update of these pieces would give; the state itself stays as it is.

        `direction`, where it is given, learns what the update is. Raises FalsePieces for a piece that
        is no encoding.
        """
        rows: list[bytes] = []
        for chunk in range(self.layout.num_chunks):
            elements = self.layout.chunk(chunk)
            parameters, momentum = self.parameters[elements].copy(), self.momentum[elements].copy()
            diloco.apply(header, pieces, chunk, parameters, momentum, direction)
            rows.append(chunk_row(parameters, momentum))
        return b"".join(rows)

    @contextmanager
    def _changing(self) -> Generator[None]:
        """Keep the generation odd: a trainer copies parameters out only between two equal, even readings."""
        self._generation[0] += 1
        try:
            yield
        finally:
            self._generation[0] += 1


def chunk_row(parameters: Floats, momentum: Floats) -> bytes:
    """The row of a state's table for a chunk of these values."""
    return digest(as_bytes(parameters)) + digest(as_bytes(momentum))
