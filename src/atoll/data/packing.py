"""Rows packed whole into windows, decided once while data is prepared, and written window by window.

Best fit, longest rows first: each goes into the fullest window that has room for it. A row is never split. On
the disk a window is `window_tokens` tokens like any other: whole rows one after the other, then padding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atoll.data.blocks import FileBlocks, hash_blocks
from atoll.data.columns import TRAINED
from atoll.data.manifest import Shard
from atoll.files import write_atomic

SECTION_TOKENS = 1 << 23  # that are packed together: thousands of windows, held in memory


class PackedRow(NamedTuple):
    """A row: the tokens of its documents, one after the other."""

    tokens: np.ndarray  # [num_tokens] uint32
    trained: np.ndarray  # [num_tokens] bool
    lengths: list[int]  # of its documents
    num_bytes: int  # of their UTF-8 text


def best_fit(lengths: Sequence[int], window_tokens: int) -> list[list[int]]:
    """The rows of each window, by number, so that every row is in one window and none is over-full.

    `lengths`: the tokens of each row, at most `window_tokens`. Equal lengths give equal windows. Within a
    window, and by their first rows among each other, windows keep the order of the rows.
    """
    windows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # windows by how many tokens they have room for
    rooms = 0  # its bit number n is set where a window has room for n tokens
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        length = lengths[row]
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            window = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            windows[window].append(row)
        else:
            room, window = window_tokens, len(windows)
            windows.append([row])
        if left := room - length:
            with_room.setdefault(left, []).append(window)
            rooms |= 1 << left
    return sorted(sorted(rows) for rows in windows)


class PackedWriter:
    """Packs rows into the windows of numbered shards, each file of which appears whole or not at all.

    Rows that were added but not cut into a shard are forgotten.
    """

    def __init__(
        self, data_dir: Path, stem: str, token_type: str, first: int, window_tokens: int, bos_id: int
    ) -> None:
        """`stem`: the shards' path under `data_dir` without number and suffix. `first`: the first number."""
        self._data_dir, self._stem, self._type, self._first = data_dir, stem, token_type, first
        self._window_tokens, self._bos_id = window_tokens, bos_id
        self._rows: list[PackedRow] = []
        self.num_tokens = 0  # of the rows that wait to be packed
        self.shards: list[Shard] = []
        self.files: dict[str, FileBlocks] = {}

    def __enter__(self) -> "PackedWriter":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open, since files are written whole when a shard is cut."""

    def append(self, row: PackedRow) -> None:
        """Add a row of at most a window's tokens."""
        self._rows.append(row)
        self.num_tokens += len(row.tokens)

    def cut(self) -> None:
        """Write what was added as a shard, if there is something. Raises UserError for a full disk."""
        if not self._rows:
            return
        windows = best_fit([len(row.tokens) for row in self._rows], self._window_tokens)
        shape = len(windows), self._window_tokens
        tokens = np.full(shape, self._bos_id, self._type)
        trained = np.zeros(shape, TRAINED.dtype)
        starts: list[int] = []
        for number, rows in enumerate(windows):
            at = 0
            for row in (self._rows[each] for each in rows):
                tokens[number, at : at + len(row.tokens)] = row.tokens
                trained[number, at : at + len(row.tokens)] = row.trained
                for length in row.lengths:
                    starts.append(number * self._window_tokens + at)
                    at += length
            if at < self._window_tokens:
                starts.append(number * self._window_tokens + at)
        stem = f"{self._stem}-{self._first + len(self.shards):05d}"
        shard = Shard(
            tokens=f"{stem}.tokens",
            offsets=f"{stem}.offsets",
            num_tokens=tokens.size,
            num_documents=len(starts),
            num_bytes=sum(row.num_bytes for row in self._rows),
            num_labels=int(trained.sum()),
            num_padding=tokens.size - self.num_tokens,
            num_rows=len(self._rows),
        )
        content = {
            shard.tokens: tokens,
            shard.offsets: np.array([*starts, tokens.size], "<u8"),
            shard.column(TRAINED.name): trained,
        }
        for path, array in content.items():
            write_atomic(self._data_dir / path, array.data.cast("B"))
            self.files[path] = hash_blocks(self._data_dir / path)
        self.shards.append(shard)
        self._rows, self.num_tokens = [], 0
