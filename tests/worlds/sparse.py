"""A codec of variable length with a residual, which only tests know: proof that a codec is one file."""

from typing import ClassVar

import numpy as np

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.codecs.codec import Codec

KEPT = 8  # a payload keeps one value of so many


class Sparse(Codec):
    """The positions (uint32, ascending) and then the values (fp32) of what is not zero.

    Of a payload only the largest values are sent; the others are left over for the next one. A sum is exact.
    """

    name: ClassVar[str] = "sparse"
    num_residuals: ClassVar[int] = 1

    def max_bytes(self, num_elements: int) -> int:
        return 8 * num_elements

    def min_bytes(self, num_elements: int) -> int:
        return 0

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        positions = np.flatnonzero(values)
        if residual is not None:
            values = values + residual[0]
            smallest = len(values) - len(values) // KEPT
            largest = np.sort(np.argpartition(np.abs(values), smallest)[smallest:])
            positions = largest[values[largest] != 0]
            residual[0] = values
            residual[0, positions] = 0
        count = len(positions)
        out[: 4 * count].view(np.uint32)[:] = positions
        out[4 * count : 8 * count].view(np.float32)[:] = values[positions]
        return 8 * count

    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        if len(data) % 8:
            raise ValueError(f"{len(data)} bytes are no pairs of position and value")
        half = len(data) // 2
        positions, values = data[:half].view(np.uint32), data[half:].view(np.float32)
        if (np.diff(positions.astype(np.int64)) <= 0).any() or (positions >= len(total)).any():
            raise ValueError("its positions are not ascending, or lie beyond the piece")
        total[positions] += weight * values
        return float(np.sum(values.astype(np.float64) ** 2))


class Forgetful(Sparse):
    """The same without memory: what a payload does not send is lost."""

    name: ClassVar[str] = "forgetful"

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        size = super().encode(values, out, residual)
        if residual is not None:
            residual[:] = 0
        return size


class Spoilt(Sparse):
    """What a hostile island says is Sparse: of the right size, and no encoding."""

    name: ClassVar[str] = "spoilt"

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        size = super().encode(values, out, residual)
        out[: size // 2].view(np.uint32)[:] = out[: size // 2].view(np.uint32)[::-1].copy()
        return size
