"""Token shards on disk: documents are written into them, and a source's split is read as one long stream."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from atoll.data.blocks import FileBlocks, covering, hash_blocks
from atoll.data.manifest import Column, Manifest, Shard, Split
from atoll.errors import UserError
from atoll.files import atomic_path, write_atomic


class TokenShard:
    """A mapped shard. `offsets` [num_documents + 1] int64: where each document begins, and the end."""

    def __init__(self, data_dir: Path, manifest: Manifest, shard: Shard) -> None:
        """Raises UserError when a file is missing or of another size, or the offsets are damaged."""
        self._columns = {
            column.name: manifest.open(data_dir, shard.column(column.name)) for column in manifest.columns
        }
        self._tokens = manifest.open(data_dir, shard.tokens)
        offsets = manifest.open(data_dir, shard.offsets)
        self.offsets = offsets.read(0, 8 * (shard.num_documents + 1)).view("<u8").astype(np.int64)
        self._type, self._vocab_size = np.dtype(manifest.token_type), manifest.vocab_size

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the shard, as uint16 or uint32, whichever is on the disk.

        Raises UserError for a damaged block, and for a token that is not in the vocabulary.
        """
        token_bytes = self._type.itemsize
        tokens = self._tokens.read(start * token_bytes, stop * token_bytes).view(self._type)
        if len(tokens) and (largest := int(tokens.max())) >= self._vocab_size:
            at = start + int(tokens.argmax())
            raise UserError(
                f"{self._tokens.path}: token {at} is {largest}, but the vocabulary ends at "
                f"{self._vocab_size}; prepare the data again"
            )
        return tokens

    def column(self, column: Column, start: int, stop: int) -> np.ndarray:
        """A column's entries of tokens, or documents, [start, stop) of the shard: [n], or [n, width].

        Raises UserError for a damaged block.
        """
        width = column.entry_bytes
        values = self._columns[column.name].read(start * width, stop * width).view(column.dtype)
        return values.reshape(-1, column.width) if column.width > 1 else values


class TokenStream:
    """All documents of a source's split, one after the other, as one sequence of `num_tokens` tokens."""

    def __init__(self, data_dir: Path, manifest: Manifest, source: str, split: Split) -> None:
        self._data_dir, self._manifest = data_dir, manifest
        self._shards = manifest.sources[source].shards(split)
        self._opened: dict[int, TokenShard] = {}  # those that were read, by number
        self._starts = [0]  # in tokens of the stream, of each shard; then the end of the last
        for shard in self._shards:
            self._starts.append(self._starts[-1] + shard.num_tokens)
        self.num_tokens = self._starts[-1]

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens [start, stop) as int64, for each whether a document begins there as bool); start < stop.

        Raises UserError as `TokenShard` does.
        """
        tokens = np.empty(stop - start, np.int64)
        begins = np.zeros(stop - start, bool)
        for number, low, high in self._parts(start, stop):
            shard, at = self._shard(number), self._starts[number] - start
            tokens[at + low : at + high] = shard.read(low, high)
            first, last = np.searchsorted(shard.offsets, (low, high))
            begins[shard.offsets[first:last] + at] = True
        return tokens, begins

    def column(self, column: Column, start: int, stop: int) -> np.ndarray:
        """A column's entries of tokens [start, stop), or of the documents that begin there, in order.

        Raises UserError as `TokenShard` does.
        """
        found: list[np.ndarray] = []
        for number, low, high in self._parts(start, stop):
            shard = self._shard(number)
            if column.per == "document":
                low, high = np.searchsorted(shard.offsets[:-1], (low, high)).tolist()
            found.append(shard.column(column, low, high))
        return np.concatenate(found)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[str, int]]:
        """Yield (file, block) for each block that reading tokens [start, stop) needs; does not read it."""
        token_bytes = np.dtype(self._manifest.token_type).itemsize
        for number, low, high in self._parts(start, stop):
            shard = self._shards[number]
            by_token = {shard.tokens: token_bytes}
            whole = [shard.offsets]  # small, and read as a whole to find the documents
            for column in self._manifest.columns:
                if column.per == "token":
                    by_token[shard.column(column.name)] = column.entry_bytes
                else:
                    whole.append(shard.column(column.name))
            for path, entry_bytes in by_token.items():
                for block in covering(low * entry_bytes, high * entry_bytes):
                    yield path, block
            for path in whole:
                for block in range(self._manifest.files[path].num_blocks):
                    yield path, block

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield (shard number, low, high) for each shard whose tokens [low, high) are in [start, stop)."""
        number = bisect_right(self._starts, start) - 1
        while number < len(self._shards) and (base := self._starts[number]) < stop:
            yield number, max(start, base) - base, min(stop, self._starts[number + 1]) - base
            number += 1

    def document_at(self, token: int) -> int:
        """The number of the document that contains token number `token` of the stream; both count from 0."""
        number = bisect_right(self._starts, token) - 1
        before = sum(shard.num_documents for shard in self._shards[:number])
        offsets = self._shard(number).offsets
        return before + int(np.searchsorted(offsets, token - self._starts[number], "right")) - 1

    def _shard(self, number: int) -> TokenShard:
        if number not in self._opened:
            self._opened[number] = TokenShard(self._data_dir, self._manifest, self._shards[number])
        return self._opened[number]


class ShardWriter:
    """Appends documents to numbered shards, each of which appears whole or not at all.

    A context manager: leaving it closes the last shard or, after an error, drops it.
    """

    def __init__(self, data_dir: Path, stem: str, token_type: str, first: int = 0) -> None:
        """`stem`: the shards' path under `data_dir` without number and suffix. `first`: the first number."""
        self._data_dir, self._stem, self._type, self._first = data_dir, stem, token_type, first
        self._open = ExitStack()
        self._file: IO[bytes] | None = None
        self._offsets, self._num_bytes = array("Q", [0]), 0
        self.shards: list[Shard] = []
        self.files: dict[str, FileBlocks] = {}

    @property
    def num_tokens(self) -> int:
        """The number of tokens in the shard that is being written."""
        return self._offsets[-1]

    def append(self, tokens: np.ndarray, num_bytes: int) -> None:
        """Add a document of at least one token, made from `num_bytes` bytes of text."""
        if self._file is None:
            temporary = self._open.enter_context(atomic_path(self._data_dir / self._path("tokens")))
            self._file = self._open.enter_context(temporary.open("wb"))
        self._file.write(tokens.astype(self._type).data)
        self._offsets.append(self._offsets[-1] + len(tokens))
        self._num_bytes += num_bytes

    def cut(self) -> None:
        """Close the shard, if it holds a document; the next document begins another one.

        Raises UserError for a full disk.
        """
        if self._file is None:
            return
        self._file = None
        self._open.close()
        tokens, offsets = self._path("tokens"), self._path("offsets")
        write_atomic(self._data_dir / offsets, np.array(self._offsets, "<u8").tobytes())
        self.files |= {path: hash_blocks(self._data_dir / path) for path in (tokens, offsets)}
        self.shards.append(
            Shard(
                tokens=tokens,
                offsets=offsets,
                num_tokens=self._offsets[-1],
                num_documents=len(self._offsets) - 1,
                num_bytes=self._num_bytes,
                num_labels=self._offsets[-1] - len(self._offsets) + 1,  # a document's first has no label
            )
        )
        self._offsets, self._num_bytes = array("Q", [0]), 0

    def _path(self, suffix: str) -> str:
        return f"{self._stem}-{self._first + len(self.shards):05d}.{suffix}"

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.cut()
        else:
            self._open.__exit__(kind, error, trace)  # removes the temporary file
