"""bf16: 2 bytes an element, the upper half of fp32."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.codecs.codec import Codec, squared_norm
from atoll.agent.kernel import kernel
from atoll.swarm.layout import BLOCK


class Bf16(Codec):
    """Rounded to the nearest value, ties to even."""

    name: ClassVar[str] = "bf16"

    def max_bytes(self, num_elements: int) -> int:
        return 2 * num_elements

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        assert len(out) == self.max_bytes(len(values))
        _to_bf16(values.view(np.uint32), out.view(np.uint16))
        return len(out)

    def noise(self, data: Bytes, num_elements: int, square: float) -> float:
        return square * 2.0**-16  # 8 bits of each value are kept

    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        return float(_add_bf16(data.view(np.uint16), weight, total))


@kernel
def _to_bf16(bits: npt.NDArray[np.uint32], out: npt.NDArray[np.uint16]) -> None:
    for i in range(bits.size):
        rounded = (bits[i] + np.uint32(0x7FFF) + ((bits[i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        # Rounding would carry the highest NaNs over into zeros.
        is_nan = bits[i] & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000)
        out[i] = np.uint16(0x7FC0) if is_nan else np.uint16(rounded)


@kernel
def _add_bf16(data: npt.NDArray[np.uint16], weight: np.float32, total: Floats) -> float:
    square = 0.0
    # One block at a time: the widened bits need a buffer to be seen as fp32.
    wide = np.empty(BLOCK, np.uint32)
    for start in range(0, total.size, BLOCK):
        for i in range(BLOCK):
            wide[i] = np.uint32(data[start + i]) << np.uint32(16)
        values = wide.view(np.float32)
        for i in range(BLOCK):
            total[start + i] += weight * values[i]
        square += squared_norm(values)
    return square
