"""fp32: 4 bytes an element, exact."""

from typing import ClassVar

import numpy as np

from atoll.agent.arrays import Bytes, Floats
from atoll.agent.codecs.codec import Codec, squared_norm
from atoll.agent.kernel import kernel


class Fp32(Codec):
    """The values as they are, little endian."""

    name: ClassVar[str] = "fp32"

    def max_bytes(self, num_elements: int) -> int:
        return 4 * num_elements

    def encode(self, values: Floats, out: Bytes, residual: Floats | None = None) -> int:
        out.view(np.float32)[:] = values
        return len(out)

    def noise(self, data: Bytes, num_elements: int, square: float) -> float:
        return 0.0

    def _add(self, data: Bytes, weight: np.float32, total: Floats) -> float:
        values = data.view(np.float32)
        square = squared_norm(values)
        _add_fp32(values, weight, total)
        return square


@kernel
def _add_fp32(data: Floats, weight: np.float32, total: Floats) -> None:
    for i in range(total.size):
        total[i] += weight * data[i]
