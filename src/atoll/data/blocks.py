"""Files described by their size and the BLAKE3 of every 1 MiB block, so that each block is verified alone."""

import os
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3

from atoll.errors import UserError
from atoll.files import disk_error

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 32


class FileBlocks(msgspec.Struct, frozen=True):
    """A file's size, and the concatenated digests of its blocks, of which the last may be short."""

    num_bytes: int
    digests: bytes

    @property
    def num_blocks(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest(self, block: int) -> bytes:
        """The BLAKE3 that block number `block` must have."""
        return self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def has(self, block: int, content: bytes | memoryview) -> bool:
        """Whether there is a block number `block`, and `content` has its digest."""
        return 0 <= block < self.num_blocks and blake3(content).digest() == self.digest(block)


def hash_blocks(path: Path) -> FileBlocks:
    """The size and digests of the file at `path`; reads one block at a time."""
    digests = bytearray()
    num_bytes = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digests += blake3(block).digest()
            num_bytes += len(block)
    return FileBlocks(num_bytes, bytes(digests))


def covering(start: int, stop: int) -> range:
    """The numbers of the blocks that contain bytes [start, stop) of a file."""
    return range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))


def read_block(path: Path, expected: FileBlocks, block: int) -> bytes | None:
    """The content of a block on the disk, or None where it is missing or does not have its digest."""
    if not 0 <= block < expected.num_blocks or not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(block * BLOCK_BYTES)
        content = file.read(BLOCK_BYTES)
    return content if expected.has(block, content) else None


def write_block(path: Path, expected: FileBlocks, block: int, content: bytes) -> None:
    """Write a verified block to its place in the file; blocks that are not there yet are holes.

    Unlike other files, this one does not appear whole: a block counts only by its digest, so a half-written
    one is fetched again, and two islands on one machine may fill the same file. Raises UserError when the
    disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if os.fstat(file.fileno()).st_size != expected.num_bytes:
                file.truncate(expected.num_bytes)
            file.seek(block * BLOCK_BYTES)
            file.write(content)  # not through a mapping, where a full disk is a signal instead of an error
    except OSError as error:
        raise disk_error(path, error) from error


class CheckedFile:
    """A read-only mapped file whose blocks are compared with their digests when they are first read.

    This costs a third of a millisecond per block, once, and saves a pass over all data before training.
    Blocks that are never read may be holes.
    """

    def __init__(self, path: Path, expected: FileBlocks) -> None:
        """Raises UserError when the file is absent or of another size."""
        self.path, self._expected = path, expected
        try:
            num_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise UserError(f"{path}: missing; run `atoll prepare` again in a fresh directory") from error
        if num_bytes != expected.num_bytes:
            raise UserError(
                f"{path}: damaged: {num_bytes} bytes, not {expected.num_bytes}; prepare the data again"
            )
        # Viewed as a plain array, because slicing a memmap costs three times as much.
        self._bytes = np.memmap(path, np.uint8, "r").view(np.ndarray) if num_bytes else np.empty(0, np.uint8)
        self._checked = np.zeros(expected.num_blocks, bool)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as a uint8 view. Raises UserError, naming the block, for a wrong digest."""
        for block in covering(start, stop):
            if not self._checked[block]:
                self._check(block)
        return self._bytes[start:stop]

    def check_all(self) -> None:
        """Compare every block; raises UserError like `read`."""
        self.read(0, self._expected.num_bytes)

    def _check(self, block: int) -> None:
        content = self._bytes[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        if not self._expected.has(block, content.data):
            raise UserError(
                f"{self.path}: block {block} is damaged, or was never fetched (its checksum differs); "
                "prepare the data again"
            )
        self._checked[block] = True
