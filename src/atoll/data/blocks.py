"""Files named by what is in them: a size and the BLAKE3 of every 1 MiB block, so that any block is checked alone."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3

from atoll.errors import UserError
from atoll.files import disk_error

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 32

FetchBlock = Callable[[int], bytes]  # a block of the file, by number


class FileBlocks(msgspec.Struct, frozen=True):
    """A file's size and the concatenated digests of its blocks (the last one may be short)."""

    num_bytes: int
    digests: bytes

    @property
    def num_blocks(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest(self, block: int) -> bytes:
        """The BLAKE3 that block number `block` must have."""
        return self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]


def hash_blocks(path: Path) -> FileBlocks:
    """The description of a file as it lies on the disk; reads one block at a time."""
    digests = bytearray()
    num_bytes = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digests += blake3(block).digest()
            num_bytes += len(block)
    return FileBlocks(num_bytes, bytes(digests))


class CheckedFile:
    """A read-only mapped file whose blocks are compared with their digests the first time they are touched.

    Checking as we read costs a third of a millisecond per block once, and makes a full pass before training needless.
    Where blocks can be fetched, those that are missing or damaged are, and kept: the file may begin as a hole.
    """

    def __init__(self, path: Path, expected: FileBlocks, fetch: FetchBlock | None = None) -> None:
        """Raises UserError when the file is absent or of another size, and cannot be fetched."""
        self.path, self._expected, self._fetch = path, expected, fetch
        if fetch is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.truncate(expected.num_bytes)
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; run `atoll prepare` again in a fresh directory") from error
        if num_bytes != expected.num_bytes:
            raise UserError(f"{path}: damaged: {num_bytes} bytes, not {expected.num_bytes}; prepare the data again")
        # as a plain array: slices of a memmap cost three times as much
        self._bytes = np.memmap(path, np.uint8, "r").view(np.ndarray) if num_bytes else np.empty(0, np.uint8)
        self._checked = np.zeros(expected.num_blocks, bool)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as a uint8 view; raises UserError naming file and block where a digest differs."""
        for block in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
            if not self._checked[block]:
                self._check(block)
        return self._bytes[start:stop]

    def check_all(self) -> None:
        """Compare every block; raises UserError like `read`."""
        self.read(0, self._expected.num_bytes)

    def _check(self, block: int) -> None:
        content = self._bytes[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        if blake3(content.data).digest() != self._expected.digest(block):
            if self._fetch is None:
                raise UserError(f"{self.path}: block {block} is damaged (its checksum differs); prepare the data again")
            self._fill(block, self._fetch(block))
        self._checked[block] = True

    def _fill(self, block: int, content: bytes) -> None:
        if blake3(content).digest() != self._expected.digest(block):
            raise UserError(f"{self.path}: block {block} was fetched, but is not what its checksum says")
        try:
            with self.path.open("r+b") as file:  # written, not mapped: a full disk is an error here, and a signal there
                file.seek(block * BLOCK_BYTES)
                file.write(content)
        except OSError as error:
            raise disk_error(self.path, error) from error
