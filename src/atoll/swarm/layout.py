"""Where each tensor lies in the flat space, and how that space is cut into chunks, pieces and blocks.

tensor   padded to BLOCK elements, so that no block belongs to two tensors
block    BLOCK elements that share one int8 scale
piece    what travels at once in a reduce (a multiple of BLOCK)
chunk    what one digest of a state's table covers (a multiple of a piece)
"""

import math
from collections.abc import Iterator
from functools import cached_property

import msgspec
from blake3 import blake3

BLOCK = 4096
DIGEST_BYTES = 32


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


class Layout(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """The flat space of one run; every island has the same one. All counts are in fp32 elements."""

    tensors: tuple[TensorSpec, ...]
    chunk_elements: int = 1 << 20
    piece_elements: int = 1 << 16

    def __post_init__(self) -> None:
        if (
            self.piece_elements <= 0
            or self.piece_elements % BLOCK
            or self.chunk_elements % self.piece_elements
        ):
            raise ValueError("a piece must be whole blocks and a chunk whole pieces")

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first element of each tensor; one more at the end: the size of the flat space."""
        at, result = 0, [0]
        for tensor in self.tensors:
            at += -(-tensor.num_elements // BLOCK) * BLOCK
            result.append(at)
        return tuple(result)

    @property
    def num_elements(self) -> int:
        return self.offsets[-1]

    def places(self) -> Iterator[tuple[TensorSpec, slice]]:
        """Each tensor with its elements of the flat space, padding left out."""
        for tensor, start in zip(self.tensors, self.offsets, strict=False):
            yield tensor, slice(start, start + tensor.num_elements)

    @property
    def num_pieces(self) -> int:
        return -(-self.num_elements // self.piece_elements)

    @property
    def num_chunks(self) -> int:
        return -(-self.num_elements // self.chunk_elements)

    def piece(self, index: int) -> slice:
        """The elements of one piece; the last may be short."""
        return slice(index * self.piece_elements, min((index + 1) * self.piece_elements, self.num_elements))

    def chunk(self, index: int) -> slice:
        """The elements of one chunk; the last may be short."""
        return slice(index * self.chunk_elements, min((index + 1) * self.chunk_elements, self.num_elements))

    def pieces_of_chunk(self, index: int) -> range:
        per_chunk = self.chunk_elements // self.piece_elements
        return range(index * per_chunk, min((index + 1) * per_chunk, self.num_pieces))


def digest(data: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


def root(table: bytes | memoryview) -> bytes:
    """What names everything a table of digests covers: the BLAKE3 of the table."""
    return digest(table)


def row(table: bytes | memoryview, index: int, width: int = DIGEST_BYTES) -> bytes:
    """Digest number `index` of a table."""
    return bytes(table[index * width : (index + 1) * width])
