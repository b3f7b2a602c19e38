"""The agent's part of the audit of sums: `swarm/audit.py` says what a measure is."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atoll.agent.arrays import Floats
from atoll.agent.codecs import Codec
from atoll.agent.kernel import kernel
from atoll.agent.pieces import FalsePieces, Pieces
from atoll.swarm.audit import LANES, Rows
from atoll.swarm.layout import BLOCK

Lanes = npt.NDArray[np.float64]  # [LANES]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # of splitmix64, like those below
_MIX, _MIX_AGAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SIGNS = 64  # that one random number gives


def measure(pieces: Pieces, groups: Sequence[range], seed: bytes) -> Rows:
    """The rows of these groups of pieces, which are here. Raises FalsePieces for one that is no encoding."""
    rows = np.zeros((len(groups), LANES + 1), np.float32)
    for row, group in zip(rows, groups, strict=True):
        total, noise = np.zeros(LANES), 0.0
        for index in group:
            elements = pieces.layout.piece(index)
            try:
                lanes, error = measure_piece(
                    pieces.codec, pieces[index], elements.start, elements.stop - elements.start, seed
                )
            except ValueError as error:
                raise FalsePieces(index, str(error)) from error
            total += lanes
            noise += error
        row[:LANES], row[LANES] = total, noise
    return rows


def measure_piece(
    codec: Codec, piece: bytes | memoryview, first_element: int, num_elements: int, seed: bytes
) -> tuple[Lanes, float]:
    """(sums of a piece's values with random signs [LANES], the squared error of encoding them in one lane).

    Raises ValueError if it is no encoding of so many elements.
    """
    data, values = np.frombuffer(piece, np.uint8), np.zeros(num_elements, np.float32)
    square = codec.add_decoded(data, np.float32(1), values)
    lanes = np.zeros(LANES)
    add_signed(values, np.uint64(int.from_bytes(seed, "little")), np.uint64(first_element // _SIGNS), lanes)
    return lanes, codec.noise(data, num_elements, square)


@kernel
def add_signed(values: Floats, seed: np.uint64, first: np.uint64, lanes: Lanes) -> None:
    """lanes[i % LANES] += values[i], with random signs. `values` [n, a multiple of BLOCK]; `first`: the
    number of their first 64 in the flat space.

    A block is done in three sweeps that a compiler makes wide instructions of, without reordering a sum.
    """
    raw = values.view(np.uint32)
    flipped, sums = np.empty(BLOCK, np.uint32), np.empty(_SIGNS, np.float32)
    signed, top = flipped.view(np.float32), np.uint32(0x80000000)
    for block in range(0, values.size, BLOCK):
        for at in range(0, BLOCK, _SIGNS):
            bits = seed + (first + np.uint64((block + at) // _SIGNS) + np.uint64(1)) * _GOLDEN
            bits = (bits ^ (bits >> np.uint64(30))) * _MIX
            bits = (bits ^ (bits >> np.uint64(27))) * _MIX_AGAIN
            bits ^= bits >> np.uint64(31)
            low, high = np.uint32(bits), np.uint32(bits >> np.uint64(32))
            for i in range(32):
                flipped[at + i] = raw[block + at + i] ^ ((low << np.uint32(i)) & top)
            for i in range(32):
                flipped[at + 32 + i] = raw[block + at + 32 + i] ^ ((high << np.uint32(i)) & top)
        for i in range(_SIGNS):
            sums[i] = 0
        for at in range(0, BLOCK, _SIGNS):
            for i in range(_SIGNS):
                sums[i] += signed[at + i]
        for i in range(_SIGNS):
            lanes[i % LANES] += np.float64(sums[i])
