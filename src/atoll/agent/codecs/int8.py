"""int8: 1 byte an element, and 4 for the scale of each block."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.codecs.codec import Codec
from atoll.agent.kernel import kernel
from atoll.swarm.audit import LANES
from atoll.swarm.layout import BLOCK

_SMALLEST_NORMAL = np.float32(1.17549435e-38)
_LARGEST = np.float32(3.4028235e38 / 128)  # of a scale: no element of its block is infinite


class Int8(Codec):
    """Per block of 4,096 elements: scale s = max|x| / 127, fp32; then q = rint(x / s) of each element.

    The scales of all blocks come first, then all q.
    """

    name: ClassVar[str] = "int8"

    def max_bytes(self, num_elements: int) -> int:
        return num_elements + 4 * (num_elements // BLOCK)

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        assert len(out) == self.max_bytes(len(values))
        scales, quantised = _parts(out, len(values))
        _quantise(values, scales, quantised)
        return len(out)

    def noise(self, data: Bytes, num_elements: int, square: float) -> float:
        scales, _ = _parts(data, num_elements)
        return float(np.sum((scales.astype(np.float64) / 2) ** 2)) * (BLOCK // LANES)

    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        scales, quantised = _parts(data, len(total))
        return float(_add_int8(scales, quantised, weight, total))


def _parts(data: Bytes, num_elements: int) -> tuple[Floats, npt.NDArray[np.int8]]:
    """The scales, and the quantised elements, of an encoded piece."""
    scale_bytes = 4 * (num_elements // BLOCK)
    return data[:scale_bytes].view(np.float32), data[scale_bytes:].view(np.int8)


@kernel
def _quantise(values: Floats, scales: Floats, out: npt.NDArray[np.int8]) -> None:
    bits = values.view(np.uint32)
    top_bits = np.zeros(1, np.uint32)
    top = top_bits.view(np.float32)
    for block in range(scales.size):
        # As integers the magnitudes have the same order, and NaN is the largest of them: no value hides it.
        top_bits[0] = 0
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            top_bits[0] = max(top_bits[0], bits[i] & np.uint32(0x7FFFFFFF))
        scale = top[0] / np.float32(127)
        if scale < _SMALLEST_NORMAL:  # a subnormal scale is too coarse to divide by: such a block is zero
            scale = np.float32(0)
        scales[block] = scale
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            out[i] = np.int8(np.rint(values[i] / scale)) if 0 < scale < np.inf else np.int8(0)


@kernel
def _add_int8(scales: Floats, data: npt.NDArray[np.int8], weight: np.float32, total: Floats) -> float:
    square = 0.0
    for block in range(scales.size):
        scale = scales[block]
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            total[i] += weight * (scale * np.float32(data[i]))
        count = np.int32(0)  # of squared quantised elements: at most 2**26
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            count += np.int32(data[i]) * np.int32(data[i])
        # A scale that overflows with some element makes the norm NaN, whatever the elements are.
        square += np.float64(scale) * np.float64(scale) * count if abs(scale) <= _LARGEST else np.nan
    return square
