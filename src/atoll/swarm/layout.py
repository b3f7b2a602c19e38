"""Where each tensor lies in the flat space, and how that space is cut into chunks, pieces and blocks.

tensor   padded to whole blocks, so that no block belongs to two tensors
block    BLOCK elements, which share one int8 scale
piece    whole blocks, which travel at once in a reduce
chunk    whole pieces; a state's table has one row for each
"""

import math
from collections.abc import Iterator
from functools import cached_property

import msgspec
from blake3 import blake3

BLOCK = 4096
DIGEST_BYTES = 32


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the model."""

    name: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Without padding."""
        return math.prod(self.shape)


class Layout(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """The flat space of one run, the same on every island. Sizes and offsets are in fp32 elements."""

    tensors: tuple[TensorSpec, ...]
    chunk_elements: int = 1 << 20
    piece_elements: int = 1 << 16

    def __post_init__(self) -> None:
        whole_blocks = self.piece_elements > 0 and self.piece_elements % BLOCK == 0
        if not whole_blocks or self.chunk_elements % self.piece_elements:
            raise ValueError(
                f"a piece of {self.piece_elements} elements must be whole blocks of {BLOCK}, and a chunk of "
                f"{self.chunk_elements} whole pieces"
            )

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first element of each tensor, and at the end the size of the flat space."""
        offset, offsets = 0, [0]
        for tensor in self.tensors:
            offset += -(-tensor.num_elements // BLOCK) * BLOCK
            offsets.append(offset)
        return tuple(offsets)

    @property
    def num_elements(self) -> int:
        """The size of the flat space, padding included."""
        return self.offsets[-1]

    def tensor_slices(self) -> Iterator[tuple[TensorSpec, slice]]:
        """Each tensor with its elements in the flat space, without padding."""
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
        """The numbers of the pieces in one chunk."""
        per_chunk = self.chunk_elements // self.piece_elements
        return range(index * per_chunk, min((index + 1) * per_chunk, self.num_pieces))


def digest(data: bytes | memoryview) -> bytes:
    """The BLAKE3 of some bytes: DIGEST_BYTES bytes."""
    return blake3(data).digest()


def root(table: bytes | memoryview) -> bytes:
    """The digest of a table of digests: it names all that the table covers."""
    return digest(table)


def row(table: bytes | memoryview, index: int, width: int = DIGEST_BYTES) -> bytes:
    """Row `index` of a table whose rows are `width` bytes."""
    return bytes(table[index * width : (index + 1) * width])
