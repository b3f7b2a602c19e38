"""Files named by what is in them: a size and the BLAKE3 of every 1 MiB block, so that any block is checked
alone.
"""

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
    """A file's size and the concatenated digests of its blocks (the last one may be short)."""

    num_bytes: int
    digests: bytes

    @property
    def num_blocks(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def digest(self, block: int) -> bytes:
        """The BLAKE3 that block number `block` must have."""
        return self.digests[block * DIGEST_BYTES : (block + 1) * DIGEST_BYTES]

    def has(self, block: int, content: bytes | memoryview) -> bool:
        """Whether `content` is block number `block`."""
        return 0 <= block < self.num_blocks and blake3(content).digest() == self.digest(block)


def hash_blocks(path: Path) -> FileBlocks:
    """The description of a file as it lies on the disk; reads one block at a time."""
    digests = bytearray()
    num_bytes = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digests += blake3(block).digest()
            num_bytes += len(block)
    return FileBlocks(num_bytes, bytes(digests))


def covering(start: int, stop: int) -> range:
    """The numbers of the blocks that hold bytes [start, stop) of a file."""
    return range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))


def read_block(path: Path, expected: FileBlocks, block: int) -> bytes | None:
    """A block as it lies on the disk; None where it is missing, or not what its digest says."""
    if not 0 <= block < expected.num_blocks or not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(block * BLOCK_BYTES)
        content = file.read(BLOCK_BYTES)
    return content if expected.has(block, content) else None


def write_block(path: Path, expected: FileBlocks, block: int, content: bytes) -> None:
    """Put a block that was checked into its place; what else is missing of the file is a hole.

    In place, although files appear whole elsewhere: a block counts by its digest alone, so a torn one is
    fetched again, and two islands of one machine may fill the same file. Raises UserError when the disk is
    full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if os.fstat(file.fileno()).st_size != expected.num_bytes:
                file.truncate(expected.num_bytes)
            file.seek(block * BLOCK_BYTES)
            file.write(content)  # not mapped: a full disk is an error here, and a signal there
    except OSError as error:
        raise disk_error(path, error) from error


class CheckedFile:
    """A read-only mapped file whose blocks are compared with their digests the first time they are touched.

    Checking as we read costs a third of a millisecond per block once, and makes a full pass before training
    needless. The rest of the file may be holes.
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
        # as a plain array: slices of a memmap cost three times as much
        self._bytes = np.memmap(path, np.uint8, "r").view(np.ndarray) if num_bytes else np.empty(0, np.uint8)
        self._checked = np.zeros(expected.num_blocks, bool)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Bytes [start, stop) as a uint8 view; raises UserError naming file and block where a digest
        differs.
        """
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
